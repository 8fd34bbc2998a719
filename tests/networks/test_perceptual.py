"""Perceptual networks from synthetic files: read safely, compared as published, finite everywhere."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tightbound.data import Data
from tightbound.errors import CheckpointError, UsageError
from tightbound.networks.features import has_efficientnet
from tightbound.networks.own_features import OwnFeatures
from tightbound.networks.perceptual import (
    PerceptualNetwork,
    Taps,
    Vgg16,
    efficientnet_lite0,
    from_compvis,
    vgg16,
)
from tightbound.networks.weights import read_weights
from tightbound.training.features import own_features, train_features

TAPS = (3, 8, 15, 22, 29)
"""Where LPIPS cuts torchvision's `features`: after these rectifiers."""


def torchvision_vgg16() -> nn.Sequential:
    """The layers of torchvision's VGG-16, by their numbers there."""
    layers, inputs = list[nn.Module](), 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        inputs = width or inputs
    return nn.Sequential(*layers)


class Files:
    """The files of one VGG-16 and its heads, in all the forms in which people have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.manual_seed(0)
        self.network = torchvision_vgg16()
        for layer in self.network:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.state = {f"features.{name}": tensor for name, tensor in self.network.state_dict().items()}
        self.head = {f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1) for i, n in enumerate(Vgg16.channels)}

    def vgg(self) -> Path:
        rest = {"classifier.0.bias": torch.zeros(8)}
        content = io.BytesIO()
        torch.save({**self.state, **rest}, content)
        digest = hashlib.sha256(content.getvalue()).hexdigest()
        path = self.folder / f"vgg16-{digest[:8]}.pth"
        path.write_bytes(content.getvalue())
        return path

    def heads(self) -> Path:
        path = self.folder / "vgg.pth"
        torch.save(self.head, path, _use_new_zipfile_serialization=False)
        return path

    def compvis(self) -> dict[str, Tensor]:
        found = {"encoder.conv_in.weight": torch.zeros(1), "loss.logvar": torch.zeros(())}
        for name, tensor in self.network.state_dict().items():
            number = int(name.partition(".")[0])
            cut = 1 + sum(number > tap for tap in TAPS)
            found[f"loss.perceptual_loss.net.slice{cut}.{name}"] = tensor
        return {**found, **{f"loss.perceptual_loss.{name}": tensor for name, tensor in self.head.items()}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("vgg"))


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    a = torch.rand(3, 3, 32, 24) * 2 - 1
    return a, (a + 0.3 * torch.randn_like(a)).clamp(-1, 1)


def published(files: Files, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS as its authors wrote it down: epsilon outside the root."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    total, x, y = torch.zeros(len(a)), (a - shift) / scale, (b - shift) / scale
    for i, layer in enumerate(files.network):
        x, y = layer(x), layer(y)
        if i in TAPS:
            one, other = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (x, y))
            head = files.head[f"lin{TAPS.index(i)}.model.1.weight"]
            total = total + F.conv2d((one - other).square(), head).mean((1, 2, 3))
    return total


def test_it_is_the_published_distance(files: Files, images: tuple[Tensor, Tensor]) -> None:
    network = vgg16(files.vgg(), files.heads())
    found = network(*images)
    torch.testing.assert_close(found, published(files, *images), rtol=1e-4, atol=1e-6)
    assert found.min() > 0.01
    assert "hash checked" in network.taps.weights


def test_safetensors_and_the_checkpoint_of_compvis_hold_the_same_network(
    files: Files, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    save_file({name: tensor.clone() for name, tensor in files.state.items()}, tmp_path / "model.safetensors")
    expected = vgg16(files.vgg(), files.heads())(*images)
    assert torch.equal(vgg16(tmp_path / "model.safetensors", files.heads())(*images), expected)
    assert torch.equal(from_compvis(files.compvis())(*images), expected)


def test_equal_images_are_at_distance_zero_and_grey_ones_are_shown_three_times(files: Files) -> None:
    network = vgg16(files.vgg(), files.heads())
    grey = torch.rand(2, 1, 16, 16)
    assert torch.equal(network(grey, grey), torch.zeros(2))
    assert torch.equal(network(grey, -grey), network(grey.expand(2, 3, 16, 16), -grey.expand(2, 3, 16, 16)))


# -- files that are refused -------------------------------------------------------------------------------------------


def refused(act: Callable[[], object], *words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        act()
    for word in (*words, "got:", "expected:", "remedy:"):
        assert word in str(error.value)


def test_a_file_whose_name_has_another_hash_is_refused(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "vgg16-397923af.pth"
    path.write_bytes(files.vgg().read_bytes())
    refused(lambda: vgg16(path, files.heads()), "not the file that its name says", "397923af")


def test_torchscript_is_refused_by_name(files: Files, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inception.pt", "w") as archive:
        archive.writestr("inception/code/__torch__.py", "class Inception: pass")
        archive.writestr("inception/constants.pkl", b"")
    refused(lambda: vgg16(tmp_path / "inception.pt", files.heads()), "TorchScript", "state dict")


OTHERS: dict[str, tuple[dict[str, Tensor], str]] = {
    "resnet": ({"layer1.0.conv1.weight": torch.zeros(1)}, "a ResNet"),
    "bn": ({"features.0.weight": torch.zeros(64, 3, 3, 3), "features.1.running_mean": torch.zeros(64)}, "batch norm"),
    "alexnet": ({"features.0.weight": torch.zeros(64, 3, 11, 11)}, "AlexNet"),
    "heads": ({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, "LPIPS heads"),
    "nothing": ({"weight": torch.zeros(1)}, "an unknown network"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_family_is_refused_and_named(files: Files, tmp_path: Path, name: str) -> None:
    state, told = OTHERS[name]
    torch.save(state, tmp_path / "other.pth")
    refused(lambda: vgg16(tmp_path / "other.pth", files.heads()), "does not hold VGG-16", told)


def test_heads_of_another_network_are_refused(files: Files, tmp_path: Path) -> None:
    torch.save({f"lin{i}.model.1.weight": torch.zeros(1, 64, 1, 1) for i in range(5)}, tmp_path / "alex.pth")
    refused(lambda: vgg16(files.vgg(), tmp_path / "alex.pth"), "LPIPS heads of VGG-16", "(1, 128, 1, 1)")


def test_a_checkpoint_without_a_perceptual_network_is_refused() -> None:
    refused(lambda: from_compvis({"encoder.down.0.w": torch.zeros(1), "decoder.up.0.w": torch.zeros(1)}), "CompVis")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('it ran')",)


def test_a_payload_does_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.weight": Payload()}, tmp_path / "vgg16.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "vgg16.pth")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x80\x02nothing"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "net.pth")


def test_images_that_the_network_cannot_take_are_refused(files: Files) -> None:
    network = vgg16(files.vgg(), files.heads())
    for shape in ((2, 32, 32), (3, 8, 32), (6, 32, 32)):
        with pytest.raises(UsageError, match=r"cannot take(?s:.*)--perceptual features"):
            network(torch.zeros(1, *shape), torch.zeros(1, *shape))
    assert network(torch.zeros(1, 4, 16, 16), torch.zeros(1, 4, 16, 16)) == 0


# -- arithmetic -------------------------------------------------------------------------------------------------------


class Silent(Taps):
    """Features that are all zero, with a gradient."""

    channels = (3,)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.relu(-(x.square() + 1)) * x]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zero_features_have_the_gradient_zero_in_every_precision(dtype: torch.dtype) -> None:
    network = PerceptualNetwork(Silent())
    x = torch.zeros(2, 3, 8, 8, dtype=dtype, requires_grad=True)
    distance = network(torch.ones(2, 3, 8, 8, dtype=dtype), x)
    distance.sum().backward()
    assert distance.dtype == torch.float32
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


class Loud(Taps):
    """Features whose squares overflow half precision."""

    channels = (3,)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x * 1000]


def test_squares_are_taken_in_float32() -> None:
    a, b = torch.rand(2, 1, 3, 4, 4)
    half = PerceptualNetwork(Loud())(a.half(), b.half())
    torch.testing.assert_close(half, PerceptualNetwork(Loud())(a, b), rtol=1e-2, atol=1e-3)


def test_heads_must_fit() -> None:
    with pytest.raises(UsageError, match="heads do not fit"):
        PerceptualNetwork(Silent(), [torch.ones(2)])


# -- features of other origin -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not has_efficientnet(), reason="needs EfficientNet-Lite0")
def test_efficientnet_keeps_its_statistics_and_orders_blurs(images: tuple[Tensor, Tensor]) -> None:
    network = efficientnet_lite0()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = F.interpolate(torch.rand(4, 3, 8, 8), size=(64, 64), mode="bilinear") * 2 - 1
    x = (x + 0.2 * torch.randn_like(x)).clamp(-1, 1)
    blurs = [F.avg_pool2d(F.pad(x, [r] * 4, mode="replicate"), 2 * r + 1, 1) for r in (1, 2, 3)]
    network.train()
    found = torch.stack([network(x, blurred) for blurred in blurs])
    assert (found.diff(dim=0) > 0).all()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def stripes(n: int) -> Data:
    """Horizontal and vertical stripes of any phase, in four channels."""
    generator = torch.Generator().manual_seed(0)
    phase, kind = torch.rand(n, 1, 1, generator=generator) * 6, torch.arange(n).view(n, 1, 1) % 2
    along = torch.arange(12.0)
    wave = torch.where(kind == 0, torch.sin(along.view(12, 1) + phase), torch.sin(along + phase)) * 0.5 + 0.5
    values = (255 * wave).round().to(torch.uint8).unsqueeze(-1).expand(n, 12, 12, 4).numpy()
    return Data.from_arrays(values)


def test_features_of_the_data_set_its_kinds_apart() -> None:
    """Two stripes of one direction are closer than two of different directions, whatever their phase."""
    data = stripes(160)
    network = own_features(data.spec)
    assert isinstance(network.taps, OwnFeatures)
    assert "without labels" in network.taps.weights
    train_features(network.taps, data, steps=60)
    x = data.train.batch(torch.arange(40)).x * 2 - 1
    rows = x[:, 0, :, 0].std(1) > x[:, 0, 0].std(1)
    same, other = network(x[rows][:8], x[rows][8:16]), network(x[rows][:8], x[~rows][:8])
    assert same.mean() < 0.8 * other.mean()
    assert not any(p.requires_grad for p in network.parameters())
