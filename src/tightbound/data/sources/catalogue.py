"""The named data sets: descriptions, addresses and checksums."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DATASETS", "Dataset", "RemoteFile"]


@dataclass(frozen=True)
class RemoteFile:
    """One published file of a data set.

    Args:
        name: Its file name, as published.
        checksum: ``"sha256:..."`` or ``"md5:..."`` of the content; of the unpacked content if ``name`` ends in ``.gz``,
            because compressing again gives another ``.gz``.
        other_names: Names under which the same content is also accepted, packed or unpacked.
    """

    name: str
    checksum: str
    other_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every accepted name, the published one first."""
        return (self.name, *self.other_names)


@dataclass(frozen=True)
class Dataset:
    """One row of the catalogue.

    Args:
        description: One line for people.
        shape: Shape of one example, as loaded by default.
        levels: Number of values of an entry.
        examples: Number of examples of each official split, or in total if there is none.
        licence: Licence of the data.
        url: Folder of the published files; empty if nothing is downloaded.
        files: The published files.
    """

    description: str
    shape: tuple[int, ...]
    levels: int
    examples: str
    licence: str
    url: str = ""
    files: tuple[RemoteFile, ...] = ()


def _packed(name: str, checksum: str) -> RemoteFile:
    return RemoteFile(f"{name}.gz", checksum, (name,))


def _unpacked(name: str, checksum: str) -> RemoteFile:
    return RemoteFile(name, checksum, (f"{name}.gz",))


DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        "Handwritten digits of scikit-learn (UCI); embedded, no download",
        shape=(1, 8, 8),
        levels=17,
        examples="1,797",
        licence="CC BY 4.0",
    ),
    "large-digits": Dataset(
        "The same digits enlarged to 28x28, with a margin; embedded, no download",
        shape=(1, 28, 28),
        levels=256,
        examples="1,797",
        licence="CC BY 4.0",
    ),
    "mnist": Dataset(
        "Handwritten digits (LeCun, Cortes and Burges, 1998)",
        shape=(1, 28, 28),
        levels=256,
        examples="60,000 + 10,000",
        licence="CC BY-SA 3.0",
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        files=(
            _packed(
                "train-images-idx3-ubyte", "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
            ),
            _packed(
                "train-labels-idx1-ubyte", "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
            ),
            _packed(
                "t10k-images-idx3-ubyte", "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
            ),
            _packed(
                "t10k-labels-idx1-ubyte", "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
            ),
        ),
    ),
    "fashion-mnist": Dataset(
        "Images of clothes from Zalando (Xiao, Rasul and Vollgraf, 2017)",
        shape=(1, 28, 28),
        levels=256,
        examples="60,000 + 10,000",
        licence="MIT",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files=(
            _packed(
                "train-images-idx3-ubyte", "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
            ),
            _packed(
                "train-labels-idx1-ubyte", "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
            ),
            _packed(
                "t10k-images-idx3-ubyte", "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
            ),
            _packed(
                "t10k-labels-idx1-ubyte", "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
            ),
        ),
    ),
    "binarized-mnist": Dataset(
        "MNIST in Larochelle's fixed binarisation, on which published likelihoods are stated (2011)",
        shape=(1, 28, 28),
        levels=2,
        examples="50,000 + 10,000 + 10,000",
        licence="CC BY-SA 3.0",
        url="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
        files=(
            _unpacked(
                "binarized_mnist_train.amat", "sha256:ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"
            ),
            _unpacked(
                "binarized_mnist_valid.amat", "sha256:1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"
            ),
            _unpacked(
                "binarized_mnist_test.amat", "sha256:e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"
            ),
        ),
    ),
    "omniglot": Dataset(
        "1,623 handwritten characters of 50 alphabets, 20 drawings each, at 28x28 (Lake et al., 2015)",
        shape=(1, 28, 28),
        levels=256,
        examples="19,280 + 13,180",
        licence="MIT",
        url="https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
        files=(
            RemoteFile("images_background.zip", "md5:68d2efa1b9178cc56df9314c21c6e718"),
            RemoteFile("images_evaluation.zip", "md5:6b91aef0f799c5bb55b94e3f2daec811"),
        ),
    ),
    "sprites": Dataset(
        "One shape, drawn from known factors: shape, scale, orientation, x, y; drawn in memory, no download",
        shape=(1, 32, 32),
        levels=256,
        examples="7,680",
        licence="Apache-2.0",
    ),
}
"""Every named data set, by name."""
