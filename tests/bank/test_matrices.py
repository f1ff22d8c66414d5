import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from torch import nn

from kornia_lightning_probe import presets
from kornia_lightning_probe.bank import operators
from kornia_lightning_probe.bank.matrices import MatrixRecorder, is_kornia_chain

SIZE = 16


def _matrix(transform, images=None, seed=0):
    images = _ramps(1) if images is None else images
    torch.manual_seed(seed)
    with MatrixRecorder(transform) as recorder:
        output = transform(images)
    return recorder.matrices(len(images))[0], output


def _ramps(num_images: int) -> torch.Tensor:
    # Two channels that hold each pixel's own x and y, so that a warped image says where each pixel came from.
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    return torch.stack([x, y]).expand(num_images, 2, SIZE, SIZE)


def _assert_explains(matrix, output):
    # A pixel p shows what was at inv(M) p, which for the ramps is that place's own x and y.
    inside = slice(SIZE // 2 - 2, SIZE // 2 + 2)
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)
    source = torch.linalg.inv(matrix) @ points
    source = (source[:, :2] / source[:, 2:]).view(-1, 2, SIZE, SIZE)
    torch.testing.assert_close(output[..., inside, inside], source[..., inside, inside], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "transform",
    [
        K.RandomHorizontalFlip(p=1.0),
        K.RandomRotation((15.0, 15.0), p=1.0),
        K.RandomAffine((20.0, 20.0), translate=(0.1, 0.1), scale=(0.9, 0.9), p=1.0),
        K.RandomPerspective(0.3, p=1.0),
        K.RandomRotation(30.0, p=0.5),
        *presets.rotation().values(),
        *presets.translation().values(),
        *presets.scale().values(),
        *presets.shear().values(),
        K.AugmentationSequential(K.RandomRotation(20.0, p=1.0), K.RandomTranslate((0.1, 0.1), p=1.0)),
        K.AugmentationSequential(
            K.ImageSequential(K.RandomRotation(20.0, p=1.0)),
            K.RandomShear((10.0, 10.0), p=1.0),
            K.RandomVerticalFlip(p=1.0),
        ),
        K.ImageSequential(K.RandomRotation(20.0, p=1.0), K.RandomHorizontalFlip(p=0.5), random_apply=2),
        nn.Sequential(K.RandomRotation((10.0, 10.0), p=1.0), nn.Identity(), K.RandomHorizontalFlip(p=1.0)),
    ],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_matrix_says_where_every_pixel_came_from(transform, seed):
    matrix, output = _matrix(transform, _ramps(3), seed)
    assert matrix.shape == (3, 3, 3)
    assert matrix.dtype == torch.float32
    _assert_explains(matrix, output)


def test_a_positive_angle_of_rotation_turns_counter_clockwise_and_of_affine_clockwise():
    # y points down: counter-clockwise, what was right of the centre goes up, to a smaller y.
    right = torch.tensor([SIZE / 2 + 3.5, SIZE / 2 - 0.5, 1.0])
    rotated = _matrix(K.RandomRotation((30.0, 30.0), p=1.0))[0][0] @ right
    affine = _matrix(K.RandomAffine((30.0, 30.0), p=1.0))[0][0] @ right
    assert rotated[1] < right[1] < affine[1]


def test_steps_multiply_in_the_order_in_which_they_ran():
    # x -> x + 4 -> 15 - (x + 4) = 11 - x; in the other order 15 - x + 4 = 19 - x.
    shift, flip = K.RandomTranslate((0.25, 0.25), p=1.0), K.RandomHorizontalFlip(p=1.0)
    first, _ = _matrix(nn.Sequential(shift, flip))
    second, _ = _matrix(nn.Sequential(flip, shift))
    assert first[0, 0].tolist() == [-1, 0, 11]
    assert second[0, 0].tolist() == [-1, 0, 19]


def test_a_step_that_runs_twice_counts_twice():
    # Two shifts by a quarter of 16 pixels.
    chain = K.ImageSequential(
        K.RandomTranslate((0.25, 0.25), p=1.0),
        K.RandomHorizontalFlip(p=1.0),
        random_apply=2,
        random_apply_weights=[1.0, 0.0],
    )
    matrix, _ = _matrix(chain)
    assert matrix[0, 0].tolist() == [1, 0, 8]


def test_a_photometric_chain_has_the_identity():
    matrix, _ = _matrix(
        K.AugmentationSequential(K.RandomBrightness((0.8, 0.8)), operators.PinnedContrast(0.5)), torch.rand(2, 3, 8, 8)
    )
    assert torch.equal(matrix, torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize(
    "transform",
    [
        K.RandomElasticTransform(p=1.0),
        K.AugmentationSequential(K.RandomHorizontalFlip(p=1.0), K.RandomElasticTransform(p=1.0)),
        nn.Sequential(K.RandomHorizontalFlip(p=1.0), K.ImageSequential(K.RandomThinPlateSpline(p=1.0))),
        K.PatchSequential(K.RandomHorizontalFlip(p=1.0), grid_size=(2, 2), patchwise_apply=False),
        nn.AvgPool2d(3, 1, 1),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_a_step_without_a_matrix_leaves_the_chain_without_one(transform):
    matrix, _ = _matrix(transform, torch.rand(1, 3, SIZE, SIZE))
    assert matrix is None
    assert not is_kornia_chain(transform)


def test_a_callable_has_no_matrix():
    matrix, _ = _matrix(lambda images: images.flip(-1))
    assert matrix is None


def test_no_hook_stays_also_after_an_exception():
    transform = nn.Sequential(K.RandomRotation(5.0, p=1.0), K.RandomHorizontalFlip(p=1.0))
    with MatrixRecorder(transform):
        assert sum(len(step._forward_hooks) for step in transform) == 2
    with pytest.raises(ZeroDivisionError), MatrixRecorder(transform):
        raise ZeroDivisionError
    assert sum(len(step._forward_hooks) for step in transform) == 0


FLIP = K.RandomHorizontalFlip(p=1.0)


@pytest.mark.parametrize(
    ("chain", "frames"),
    [
        ([K.CenterCrop(8), K.PadTo((SIZE, SIZE))], [(8, 8)]),
        ([K.PadTo((20, 18)), K.CenterCrop(SIZE)], [(20, 18)]),
        ([K.CenterCrop((8, 12)), FLIP, K.PadTo((SIZE, SIZE))], [(8, 12), (8, 12)]),
        ([K.CenterCrop(8), K.Resize((12, 12)), K.PadTo((SIZE, SIZE), pad_mode="replicate")], [(8, 8), (12, 12)]),
        ([FLIP], None),
    ],
)
@pytest.mark.parametrize("kind", [nn.Sequential, K.ImageSequential, K.AugmentationSequential])
def test_a_chain_tells_the_frame_after_each_of_its_steps_but_the_last(chain, frames, kind):
    options = {"data_keys": ["input"]} if kind is K.AugmentationSequential else {}
    with MatrixRecorder(kind(*chain, **options)) as recorder:
        output = recorder.transform(_ramps(2))
    matrix, way = recorder.matrices(2)
    assert output.shape[-2:] == (SIZE, SIZE)
    assert matrix.shape == (2, 3, 3)
    if frames is None:
        assert way is None
    else:
        assert list(way.frames) == frames
        assert way.through.shape == (2, len(frames), 3, 3)


def test_a_recorder_that_is_used_again_forgets_the_frames():
    recorder = MatrixRecorder(nn.Sequential(K.CenterCrop(8), K.PadTo((SIZE, SIZE))))
    for _ in range(2):
        with recorder:
            recorder.transform(_ramps(1))
    assert recorder.matrices(1)[1].frames == ((8, 8),)
