"""A small complete spec as a TAO user would write it; tests replace parts of it."""

TINY = """# a tiny network on tiny data
random_seed: 42
model_config {
  input_image_config {
    image_type: RGB
    image_channel_order: 'bgr'
    size_height_width { height: 128 width: 192 }
    image_channel_mean { key: 'b' value: 103.9 }
    image_channel_mean { key: 'g' value: 116.8 }
    image_channel_mean { key: 'r' value: 123.7 }
    image_scaling_factor: 1.0
    max_objects_num_per_image: 20
  }
  arch: 'resnet:10'
  anchor_box_config { scale: 16 scale: 32 scale: 64 ratio: 1 ratio: 0.5 ratio: 2 }
  freeze_bn: False
  roi_mini_batch: 8
  rpn_stride: 16
  roi_pooling_config { pool_size: 2 }
  all_projections: True
}
training_config {
  enable_augmentation: True
  batch_size_per_gpu: 2
  num_epochs: 1
  rpn_min_overlap: 0.3
  rpn_max_overlap: 0.7
  classifier_min_overlap: 0
  classifier_max_overlap: 0.5
  std_scaling: 1.0
  classifier_regr_std: [{ key: 'x' value: 10 }, { key: 'y' value: 10 }]
  classifier_regr_std: [{ key: 'w' value: 5 }, { key: 'h' value: 5 }]
  rpn_mini_batch: 64
  rpn_pre_nms_top_N: 400
  rpn_nms_max_boxes: 60
  rpn_nms_overlap_threshold: 0.7
  regularizer { type: L2 weight: 1e-4 }
  optimizer { adam { lr: 1e-3 } }
  learning_rate {
    soft_start { base_lr: 1e-3 start_lr: 1e-4 soft_start: 0.1 annealing_points: 0.8 annealing_divider: 10 }
  }
  lambda_rpn_regr: 1
  lambda_rpn_class: 1
  lambda_cls_regr: 1
  lambda_cls_class: 1
}
dataset_config {
  data_sources { tfrecords_path: 'training/label_2' image_directory_path: 'training' }
  validation_data_source { tfrecords_path: 'validation/label_2' image_directory_path: 'validation' }
  image_extension: 'png'
  target_class_mapping { key: 'Car' value: 'car' }
  target_class_mapping { key: 'van' value: 'car' }
  target_class_mapping { key: 'pedestrian' value: 'pedestrian' }
}
augmentation_config {
  preprocessing { output_image_width: 192 output_image_height: 128 output_image_channel: 3 enable_auto_resize: True }
  spatial_augmentation { hflip_probability: 0.5 zoom_min: 1 zoom_max: 1 }
}
evaluation_config { rpn_pre_nms_top_N: 200 rpn_nms_max_boxes: 40 }
"""
