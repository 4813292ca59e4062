#!/usr/bin/env bash
# From what a TAO FasterRCNN project leaves behind to a model that runs today, one command per step.
#
#   examples/migrate_from_tao.sh SPEC CONVERT_SPEC MODEL.hdf5 IMAGES OUT [setting=value ...]
#
# SPEC           experiment spec in the original's format; its data are found beside it
# CONVERT_SPEC   dataset_convert spec
# MODEL.hdf5     trained detector of the original (decoded, if it was a .tlt)
# IMAGES         folder of images to look at
# OUT            folder for everything that is made; it must not exist yet
# setting=value  for the trainings, such as training_config.num_epochs=2
set -euo pipefail
if [ "$#" -lt 5 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
spec=$1 convert_spec=$2 model=$3 images=$4 out=$5
settings=("${@:6}")
frcnn=${FRCNN:-frcnn}
mkdir "$out"

step() {
    printf '\n== %s\n' "$1"
    shift
    "$@"
}

step "the data as TFRecords, as before" \
    $frcnn dataset_convert -d "$convert_spec" -o "$out/records/data" -r "$out/convert"
step "will it train?" \
    $frcnn check -e "$spec" || test "$?" -eq 1 # 1: warnings
step "the old model becomes a checkpoint" \
    $frcnn import_weights "$model" "$out/imported.ckpt" "spec=$spec"
step "what it is worth" \
    $frcnn evaluate -m "$out/imported.ckpt" -r "$out/evaluated"
step "trained further, from its weights" \
    $frcnn train -e "$spec" -r "$out/trained" "training_config.pretrained_weights=$out/imported.ckpt" "${settings[@]}"
step "what it sees" \
    $frcnn inference -m "$out/trained/checkpoints/best.ckpt" -r "$out/seen" -i "$images"
step "weak filters go: half of the parameters (-pth 0.5 instead is a threshold, as before)" \
    $frcnn prune -m "$out/trained/checkpoints/best.ckpt" -o "$out/pruned.ckpt" -r "$out/pruned" prune.target_ratio=0.5
step "retrained" \
    $frcnn train -e "$spec" -r "$out/retrained" "training_config.retrain_pruned_model=$out/pruned.ckpt" \
    training_config.regularizer.type=NO_REG "${settings[@]}"
step "what is left of it" \
    $frcnn evaluate -m "$out/retrained/checkpoints/best.ckpt" -r "$out/evaluated_again"
step "INT8 for TensorRT, and the bundle for DeepStream" \
    $frcnn export -m "$out/retrained/checkpoints/best.ckpt" -r "$out/bundle" --data_type int8 --gen_ds_config

printf '\n== done: %s\n' "$out/bundle"
