"""Tables as plain text."""

import io

from rich.console import Console

from frcnn.data.table import Counts, SourceTable
from frcnn.metrics import ClassResult, EvaluationResult, OperatingPoint
from frcnn.report.tables import coco_table, data_table, evaluation_table, render, rows_table


def class_result(**changes):
    figures = {
        "AP": 0.8123,
        "AP_per_iou": (0.8123,),
        "precision": 0.0123,
        "recall": 0.9456,
        "best_f1": OperatingPoint(score=0.42, precision=0.9, recall=0.8),
        "rpn_recall": 0.9871,
        "ground_truth": 1234,
        "difficult": 0,
        "detections": 56789,
        "ignored": 0,
        "calibration": None,
        "curves": (((), ()),),
    }
    return ClassResult(**(figures | changes))


NOTHING = class_result(
    AP=None,
    AP_per_iou=(None,),
    precision=None,
    recall=None,
    best_f1=None,
    rpn_recall=None,
    ground_truth=0,
    detections=0,
)


def evaluation(per_class, **changes):
    figures = {
        "mAP": 0.8123,
        "mAP_per_iou": (0.8123,),
        "metric": "area",
        "iou_thresholds": (0.5,),
        "score_threshold": 0.0001,
        "images": 20,
        "per_class": per_class,
        "coco": {},
        "confusion": None,
    }
    return EvaluationResult(**(figures | changes))


def cells(text, name):
    return next(line for line in text.splitlines() if line.strip().startswith(name)).split()


def test_every_figure_stands_in_its_row():
    text = render(evaluation_table(evaluation({"car": class_result(), "van": NOTHING})))
    car = ["car", "0.8123", "0.0123", "0.9456", "0.900/0.800", "@", "0.42", "0.9871", "1,234", "56,789"]
    assert cells(text, "car") == car
    assert cells(text, "van") == ["van", "-", "-", "-", "-", "-", "0", "0"]
    assert text.splitlines()[-1] == "mAP@0.5 = 0.8123"
    assert "score ≥ 0.0001" in text
    assert "cult" not in text


def test_difficult_objects_get_a_column_only_if_there_are_any():
    text = render(evaluation_table(evaluation({"car": class_result(difficult=7)})))
    assert cells(text, "car")[-2:] == ["7", "56,789"]


def test_ignored_detections_get_a_column_only_if_there_are_any():
    text = render(evaluation_table(evaluation({"car": class_result(ignored=12)})))
    assert cells(text, "car")[-2:] == ["56,789", "12"]
    assert "ignored" not in render(evaluation_table(evaluation({"car": class_result()})))


def test_coco_figures_stand_in_two_rows():
    names = [*("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"), "AR1", "AR10", "AR100"]
    figures = {name: i / 100 for i, name in enumerate([*names, "AR_small", "AR_medium"], start=1)}
    text = render(coco_table(figures | {"AR_large": None}))
    assert cells(text, "AP") == ["AP", "0.01", "0.02", "0.03", "0.04", "0.05", "0.06", "-", "-"]
    assert cells(text, "AR") == ["AR", "0.09", "-", "-", "0.1", "0.11", "-", "0.07", "0.08"]


def test_several_thresholds_get_a_line_each_and_the_mean_last():
    # TAO hands over float32 noise
    thresholds, means = (0.5, 0.699999988079071), (0.9, 0.7)
    result = evaluation({"car": class_result()}, mAP=0.8, mAP_per_iou=means, iou_thresholds=thresholds)
    assert render(evaluation_table(result)).splitlines()[-3:] == [
        "mAP@0.5 = 0.9000",
        "mAP@0.7 = 0.7000",
        "mAP@[0.5:0.7] = 0.8000",
    ]


def test_no_number_is_cut_on_a_terminal_of_80_columns():
    text = render(evaluation_table(evaluation({"traffic_light": class_result(difficult=1234)})), width=80)
    assert max(map(len, text.splitlines())) <= 80
    for number in ("0.8123", "0.0123", "0.9456", "0.9871", "1,234", "56,789"):
        assert number in text


def test_names_are_no_markup():
    text = render(evaluation_table(evaluation({"[red]car[/red]": class_result()})))
    assert "[red]car[/red]" in text
    assert "[bold]" in render(rows_table([{"file": "[bold]"}], title="[italic]"))


def test_rows_keep_the_order_of_keys_and_mark_what_is_missing():
    rows = [{"class": "car", "kept": 12345, "share": 0.5}, {"class": "van", "why": "too small"}]
    lines = render(rows_table(rows, title="Training data")).splitlines()
    assert lines[0] == "Training data"
    assert lines[2].split() == ["class", "kept", "share", "why"]
    assert lines[4].split() == ["car", "12,345", "0.5", "-"]
    assert lines[5].split() == ["van", "-", "-", "too", "small"]


def test_plain_text_has_no_control_characters():
    table = evaluation_table(evaluation({"car": class_result()}))
    assert "\x1b" not in render(table)
    console = Console(force_terminal=True, record=True, file=io.StringIO())
    console.print(table)  # the same table in colour
    assert "\x1b[" in console.export_text(styles=True)


def test_areas_to_ignore_have_a_row_and_a_column_only_if_there_are_any():
    def table(**areas):
        classes = {"car": Counts(kept=5, too_small=2)}
        source = SourceTable("train", 3, 0, 0, classes=classes, areas=areas, unmapped={"tree": 1})
        return render(data_table(source, split="training"))

    assert "ignore" not in table()
    text = table(dontcare=Counts(ignored=7, outside=1))
    assert cells(text, "dontcare") == ["dontcare", "0", "7", "1", "0", "-"]
    assert cells(text, "total") == ["total", "5", "7", "1", "2", "1"]
