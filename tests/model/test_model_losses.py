import math

import torch

from frcnn.model.losses import rcnn_box_loss, rcnn_class_loss, rpn_box_loss, rpn_class_loss


def test_rpn_class_by_hand():
    logits = torch.tensor([[0.0, math.log(3), 5.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0, -1.0], [-1.0, -1.0, -1.0]])
    # -ln(1/2) - ln(1/4) over a nominal sample of 4 and two images.
    torch.testing.assert_close(rpn_class_loss(logits, labels, sample=4), torch.tensor(3 * math.log(2) / 8))


def test_probabilities_are_clipped_at_1e_7():
    logits = torch.tensor([[-50.0]], requires_grad=True)
    loss = rpn_class_loss(logits, torch.tensor([[1.0]]), sample=1)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(-math.log(1e-7)))
    assert logits.grad.item() == 0
    scores = torch.tensor([[[0.0, 50.0]]])
    torch.testing.assert_close(rcnn_class_loss(scores, torch.tensor([[0]])), torch.tensor(-math.log(1e-7)))


def test_rpn_box_by_hand():
    # Sigma 3: 0.5 * 9 * 0.1^2 = 0.045 below 1/9, 1 - 0.5 / 9 = 0.9444 above.
    deltas = torch.tensor([[[0.1, 1.0, 0, 0], [9.0, 9, 9, 9], [9.0, 9, 9, 9]]])
    loss = rpn_box_loss(deltas, torch.zeros(1, 3, 4), torch.tensor([[1.0, 0.0, -1.0]]), sample=2)
    torch.testing.assert_close(loss, torch.tensor((0.045 + 1 - 0.5 / 9) / 2))


def test_rcnn_class_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)], [7.0, -7.0]]])
    # -ln(1/2) - ln(1/4); the third slot is unused but counts in the divisor 3.
    loss = rcnn_class_loss(logits, torch.tensor([[1, 0, -1]]))
    torch.testing.assert_close(loss, torch.tensor(math.log(8) / 3))


def test_rcnn_box_takes_the_true_class():
    deltas = torch.tensor([[[9.0, 9, 9, 9, 0.5, 2.0, 0, 0], [9.0] * 8, [9.0] * 8]])
    loss = rcnn_box_loss(deltas, torch.zeros(1, 3, 4), torch.tensor([[1, 2, -1]]))
    # Sigma 1: 0.5 * 0.5^2 and 2 - 0.5; background and the unused slot add nothing.
    torch.testing.assert_close(loss, torch.tensor((0.125 + 1.5) / 3))


def test_nothing_to_learn_is_zero_with_a_gradient():
    deltas = torch.ones(1, 2, 8, requires_grad=True)
    rcnn_box_loss(deltas, torch.zeros(1, 2, 4), torch.tensor([[2, -1]])).backward()
    assert deltas.grad.eq(0).all()
