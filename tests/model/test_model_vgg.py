import pytest
import torch

from frcnn.model.backbones import build_backbone


def strides(trunk):
    return [layer.stride[0] for layer in trunk.modules() if isinstance(layer, torch.nn.Conv2d)]


def test_strides_stand_in_for_pools():
    with torch.device("meta"):
        strided, pooled = (build_backbone("vgg:16", use_pooling=p).trunk for p in (False, True))
    assert strides(strided) == [1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1]
    assert set(strides(pooled)) == {1}


@pytest.mark.parametrize("arch", ["vgg:16", "vgg16"])
def test_the_head_flattens_channel_by_channel(arch):
    body = build_backbone(arch, pool_size=2, channels={"fc1": 3, "fc2": 2}).body
    assert body.fc1.weight.shape == (3, 512 * 2 * 2)
    with torch.no_grad():
        for tensor in body.parameters():
            tensor.zero_()
        # Channel 7, row 1, column 0 in TAO's order.
        body.fc1.weight[1, 7 * 4 + 2] = 1
        body.fc2.weight[0, 1] = 2
        crops = torch.zeros(2, 512, 2, 2).contiguous(memory_format=torch.channels_last)
        crops[1, 7, 1, 0] = 5
        assert body(crops).tolist() == [[0, 0], [10, 0]]


def test_double_crops_are_pooled_before_the_dense_layers():
    with torch.device("meta"):
        backbone = build_backbone("vgg:19", pool_size=3, pool_size_2x=True)
        assert backbone.crop_size == 6
        assert backbone.body.fc1.in_features == 512 * 9
        assert backbone.body(torch.zeros(2, 512, 6, 6)).shape == (2, 4096)


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.0), (0.4, 0.4), (1.0, 0.0)])
def test_dropout_follows_both_dense_layers(rate, share):
    body = build_backbone("vgg:16", pool_size=1, dropout_rate=rate, channels={"fc1": 1000, "fc2": 1000}).body
    with torch.no_grad():
        for layer in (body.fc1, body.fc2):
            layer.weight.zero_()
            layer.bias.fill_(1)
        torch.manual_seed(0)
        vectors = body.train()(torch.zeros(4, 512, 1, 1))
        assert (vectors == 0).float().mean().item() == pytest.approx(share, abs=0.05)
        assert body.eval()(torch.zeros(1, 512, 1, 1)).unique().tolist() == [1]
