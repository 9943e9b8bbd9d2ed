"""Other libraries' networks: the names of their arrays, and what they compute."""

from flax import nnx
import numpy as np

from deeprank_jax import models

TRACKED = "num_batches_tracked"


def leaves(model):
    state = nnx.to_flat_state(nnx.state(model))
    return {"/".join(map(str, path)): np.asarray(x[...]) for path, x in state}


def classifier(layout, options, *, image_size=224, num_classes=1000):
    """A network without numbers, as drawing them takes longer than the tests."""
    return nnx.eval_shape(
        lambda: models.create_classifier(
            trunk=dict(name=layout.split("/")[1], **options),
            image_size=image_size,
            num_classes=num_classes,
            batch_norm="frozen",
        )
    )


# What torchvision's and timm's state_dicts hold, written down from their sources.


def linear(name, before, after):
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}


def norm(name, width):
    words = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{word}": (width,) for word in words} | {f"{name}.{TRACKED}": ()}


def convs_with_bias(names, widths, kernels):
    shapes = {}
    for name, before, after, k in zip(
        names, (3, *widths), widths, kernels, strict=False
    ):
        shapes[f"features.{name}.weight"] = (after, before, k, k)
        shapes[f"features.{name}.bias"] = (after,)
    return shapes


def alexnet(widths=(64, 192, 384, 256, 256), fc=4096, classes=1000):
    return (
        convs_with_bias((0, 3, 6, 8, 10), widths, (11, 5, 3, 3, 3))
        | linear("classifier.1", 256 * 6 * 6, fc)
        | linear("classifier.4", fc, fc)
        | linear("classifier.6", fc, classes)
    )


def vgg16(library, fc=4096, classes=1000):
    widths = (64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6
    names = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    shapes = convs_with_bias(names, widths, (3,) * 13)
    if library == "timm":
        shapes |= {
            "pre_logits.fc1.weight": (fc, 512, 7, 7),
            "pre_logits.fc1.bias": (fc,),
            "pre_logits.fc2.weight": (fc, fc, 1, 1),
            "pre_logits.fc2.bias": (fc,),
        }
        return shapes | linear("head.fc", fc, classes)
    shapes |= linear("classifier.0", 512 * 7 * 7, fc) | linear("classifier.3", fc, fc)
    return shapes | linear("classifier.6", fc, classes)


def resnet50(classes=1000):
    shapes = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    before = 64
    for stage, (blocks, width) in enumerate(
        ((3, 64), (4, 128), (6, 256), (3, 512)), start=1
    ):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes |= {
                f"{name}.conv1.weight": (width, before, 1, 1),
                f"{name}.conv2.weight": (width, width, 3, 3),
                f"{name}.conv3.weight": (4 * width, width, 1, 1),
            }
            for i, channels in enumerate((width, width, 4 * width), start=1):
                shapes |= norm(f"{name}.bn{i}", channels)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, before, 1, 1)
                shapes |= norm(f"{name}.downsample.1", 4 * width)
            before = 4 * width
    return shapes | linear("fc", 2048, classes)


LITE = {
    # Of each stage: blocks, kernel, stride, expansion, channels.
    0: ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
    1: ((1, 3, 1, 1, 16), (3, 3, 2, 6, 24), (3, 5, 2, 6, 40), (4, 3, 2, 6, 80),
        (4, 5, 1, 6, 112), (5, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
    2: ((1, 3, 1, 1, 16), (3, 3, 2, 6, 24), (3, 5, 2, 6, 48), (4, 3, 2, 6, 88),
        (4, 5, 1, 6, 120), (5, 5, 2, 6, 208), (1, 3, 1, 6, 352)),
}  # fmt: skip


def lite_blocks(number):
    before = 32
    for blocks, kernel, stride, expansion, after in LITE[number]:
        for i in range(blocks):
            yield before, after, kernel, stride if i == 0 else 1, expansion
            before = after


def efficientnet_lite(number):
    shapes = {"_conv_stem.weight": (32, 3, 3, 3)} | norm("_bn0", 32)
    after = 32
    for i, (before, after, kernel, _, expansion) in enumerate(lite_blocks(number)):
        name, inner = f"_blocks.{i}", before * expansion
        if expansion > 1:
            shapes[f"{name}._expand_conv.weight"] = (inner, before, 1, 1)
            shapes |= norm(f"{name}._bn0", inner)
        shapes[f"{name}._depthwise_conv.weight"] = (inner, 1, kernel, kernel)
        shapes |= norm(f"{name}._bn1", inner)
        shapes[f"{name}._project_conv.weight"] = (after, inner, 1, 1)
        shapes |= norm(f"{name}._bn2", after)
    shapes["_conv_head.weight"] = (1280, after, 1, 1)
    return shapes | norm("_bn1", 1280) | linear("_fc", 1280, 1000)


def random_arrays(shapes):
    """Weights that keep the numbers' size from layer to layer."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
        arrays[name] = rng.normal(0, scale, shape).astype("f4")
        if len(shape) == 1 and name.endswith(("weight", "running_var")):
            arrays[name] = np.abs(1 + arrays[name])
    return arrays


# The networks by hand, in torch's order: pictures are [channels, H, W].


def pad(x, pads, value=0.0):
    return np.pad(x, ((0, 0), pads, pads), constant_values=value)


def windows(x, size, stride):
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return views[:, ::stride, ::stride]


def conv(x, kernel, *, stride=1, pads=(0, 0), bias=None):
    views = windows(pad(x, pads), kernel.shape[-1], stride)
    if kernel.shape[1] == 1 and len(x) > 1:
        y = np.einsum("chwij,cij->chw", views, kernel[:, 0])
    else:
        y = np.tensordot(kernel, views, ((1, 2, 3), (0, 3, 4)))
    return y if bias is None else y + bias[:, None, None]


def max_pool(x, size, stride, pads=(0, 0)):
    return windows(pad(x, pads, -np.inf), size, stride).max((-2, -1))


def relu(x, most=np.inf):
    return np.clip(x, 0, most)


def batch_norm(x, arrays, name, epsilon):
    scale, bias, mean, var = (
        arrays[f"{name}.{word}"][:, None, None]
        for word in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


def alexnet_by_hand(x, arrays):
    for name, stride, padding in (
        (0, 4, 2),
        (3, 1, 2),
        (6, 1, 1),
        (8, 1, 1),
        (10, 1, 1),
    ):
        kernel, bias = (arrays[f"features.{name}.{w}"] for w in ("weight", "bias"))
        x = relu(conv(x, kernel, stride=stride, pads=(padding, padding), bias=bias))
        x = max_pool(x, 3, 2) if name in (0, 3, 10) else x
    x = x.ravel()
    for name in (1, 4, 6):
        x = arrays[f"classifier.{name}.weight"] @ x + arrays[f"classifier.{name}.bias"]
        x = relu(x) if name < 6 else x
    return x


def resnet50_by_hand(x, arrays):
    def layer(x, conv_name, norm_name, **options):
        x = conv(x, arrays[f"{conv_name}.weight"], **options)
        return batch_norm(x, arrays, norm_name, 1e-5)

    x = max_pool(relu(layer(x, "conv1", "bn1", stride=2, pads=(3, 3))), 3, 2, (1, 1))
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            name, shortcut = f"layer{stage}.{block}", x
            stride = 2 if stage > 1 and block == 0 else 1
            x = relu(layer(x, f"{name}.conv1", f"{name}.bn1"))
            x = relu(
                layer(x, f"{name}.conv2", f"{name}.bn2", stride=stride, pads=(1, 1))
            )
            x = layer(x, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                down = f"{name}.downsample"
                shortcut = layer(shortcut, f"{down}.0", f"{down}.1", stride=stride)
            x = relu(x + shortcut)
    return arrays["fc.weight"] @ x.mean((1, 2)) + arrays["fc.bias"]


def efficientnet_lite0_by_hand(x, arrays):
    def layer(x, conv_name, norm_name, stride=1):
        kernel = arrays[f"{conv_name}.weight"]
        # TensorFlow's SAME: the odd pixel of padding comes last.
        size = kernel.shape[-1]
        total = max((-(-x.shape[1] // stride) - 1) * stride + size - x.shape[1], 0)
        x = conv(x, kernel, stride=stride, pads=(total // 2, total - total // 2))
        return batch_norm(x, arrays, norm_name, 1e-3)

    x = relu(layer(x, "_conv_stem", "_bn0", 2), 6)
    for i, (before, after, _, stride, expansion) in enumerate(lite_blocks(0)):
        name, y = f"_blocks.{i}", x
        if expansion > 1:
            y = relu(layer(y, f"{name}._expand_conv", f"{name}._bn0"), 6)
        y = relu(layer(y, f"{name}._depthwise_conv", f"{name}._bn1", stride), 6)
        y = layer(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if stride == 1 and before == after else y
    x = relu(layer(x, "_conv_head", "_bn1"), 6).mean((1, 2))
    return arrays["_fc.weight"] @ x + arrays["_fc.bias"]
