"""Which layers "auto" takes, and which is the embedding, by kinds of nets: what two images show of each."""

from __future__ import annotations

import copy

import pytest
import torch
from support.nets import ResNet, TokenBlock, ViT
from torch import Tensor, nn

from kornia_lightning_probe import AugmentationBank, probe_model

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BANK = AugmentationBank({"dark": lambda images: images * 0.5})
BLOCKS = ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "layer4.1"]


def probed(net: nn.Module, inputs=IMAGES, **options):
    """What a probe of one view says of a net."""
    return probe_model(net.eval(), inputs, BANK, metrics=["sensitivity"], **options)


def layers_and_embedding(net: nn.Module, inputs=IMAGES, **options) -> tuple[list[str], str]:
    result = probed(net, inputs, **options)
    return list(result.layers), result.metadata["embedding"]


class Encoder(nn.Module):
    """Blocks of tokens that end in a residual sum."""

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList(TokenBlock(8) for _ in range(depth))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


ENCODER = ["stem", *(f"blocks.{index}" for index in range(6))]


class NormedEncoder(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(super().forward(images))


class Classifier(NormedEncoder):
    """A head behind something that makes nothing new of what it is given."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.between = between
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.between(super().forward(images)[:, 0]))


class TestTwins:
    @pytest.mark.parametrize("teacher_first", [False, True])
    def test_a_teacher_that_does_not_run_costs_its_student_no_layer(self, teacher_first: bool) -> None:
        class Averaged(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                for name in sorted(["student", "teacher"], reverse=teacher_first):
                    self.add_module(name, ResNet())

            def forward(self, images: Tensor) -> Tensor:
                return self.student(images)

        names = ["conv1", *BLOCKS, "avgpool", "fc"]
        assert layers_and_embedding(Averaged()) == ([f"student.{name}" for name in names], "student.avgpool")

    def test_of_two_towers_only_the_one_that_runs_is_taken(self) -> None:
        class Byol(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.online = NormedEncoder()
                self.projection = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
                self.target = copy.deepcopy(self.online)

            def forward(self, images: Tensor) -> Tensor:
                return self.projection(self.online(images).mean(1))

        layers, embedding = layers_and_embedding(Byol())
        assert layers == [*(f"online.{name}" for name in ENCODER), *(f"projection.{index}" for index in range(3))]
        # The last linear map is the head; the ReLU goes into it.
        assert embedding == "projection.1"

    def test_a_text_tower_with_one_text_for_all_images_is_no_layer(self) -> None:
        class TwoTowers(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.text = nn.Sequential(nn.Embedding(10, 8), *(TokenBlock(8) for _ in range(4)))
                self.visual = NormedEncoder()
                self.projection = nn.Linear(8, 8)

            def forward(self, images: Tensor) -> Tensor:
                texts = self.text(torch.arange(6).expand(3, 6)).mean(1)
                return self.projection(self.visual(images).mean(1)) @ texts.T

        layers, embedding = layers_and_embedding(TwoTowers())
        assert layers == [*(f"visual.{name}" for name in [*ENCODER, "norm"]), "projection"]
        assert embedding == "projection"


class TestWhatRuns:
    def test_an_auxiliary_head_that_does_not_run_is_no_layer(self) -> None:
        class Auxiliary(ResNet):
            def __init__(self) -> None:
                super().__init__()
                self.aux = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))

        assert layers_and_embedding(Auxiliary()) == (["conv1", *BLOCKS, "avgpool", "fc"], "avgpool")

    def test_position_and_query_embeddings_are_no_layers(self) -> None:
        class Queries(Encoder):
            def __init__(self) -> None:
                super().__init__()
                self.positions, self.queries = nn.Embedding(16, 8), nn.Embedding(3, 8)
                self.decoder = TokenBlock(8)
                self.classes = nn.Linear(8, 2)

            def forward(self, images: Tensor) -> Tensor:
                tokens = super().forward(images) + self.positions(torch.arange(16))
                queries = self.queries(torch.arange(3)) + tokens.mean(1, keepdim=True)
                return self.classes(self.decoder(queries))

        assert layers_and_embedding(Queries()) == ([*ENCODER, "decoder", "classes"], "decoder")

    def test_thinning_follows_the_order_of_execution(self) -> None:
        class Alternating(nn.Module):
            """Defined head first, then all even and all odd layers, and run in turn."""

            def __init__(self) -> None:
                super().__init__()
                self.head = nn.Linear(4, 2)
                self.even = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(20))
                self.odd = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(20))
                self.stem = nn.Conv2d(3, 4, 1)

            def forward(self, images: Tensor) -> Tensor:
                maps = self.stem(images)
                for even, odd in zip(self.even, self.odd, strict=True):
                    maps = maps + odd(even(maps))
                return self.head(maps.mean((2, 3)))

        layers, embedding = layers_and_embedding(Alternating())
        # Of 40 every second, counted back from the last.
        assert layers == ["stem", *(f"odd.{index}" for index in range(20)), "head"]
        assert embedding == "odd.19"

    def test_a_kind_with_few_members_is_not_thinned_with_one_of_many(self) -> None:
        stem, head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
        down, blocks = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Conv2d(4, 4, 1)
        bodies = [copy.deepcopy(layer) for _ in range(3) for layer in [down, *([blocks] * 8)]]
        net = nn.Sequential(stem, *bodies, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        for conv in net.modules():
            if isinstance(conv, nn.Conv2d):
                # Random ones would shrink what tells images apart, twenty-seven times.
                nn.init.dirac_(conv.weight)
                nn.init.zeros_(conv.bias)
        layers, embedding = layers_and_embedding(net)
        # All three that reduce, and every second of 24 blocks.
        assert {"1", "10", "19"} <= set(layers)
        assert (len(layers), layers[0], layers[-1], embedding) == (1 + 3 + 12 + 2, "0", "30", "28")

    def test_a_layer_that_all_blocks_share_gives_way_where_its_calls_are_too_many(self) -> None:
        class Shared(Encoder):
            def __init__(self) -> None:
                super().__init__(12)
                self.positions = nn.Linear(8, 8)
                self.head = nn.Linear(8, 2)

            def forward(self, images: Tensor) -> Tensor:
                tokens = self.stem(images).flatten(2).transpose(1, 2)
                for block in self.blocks:
                    tokens = block(tokens + self.positions(tokens))
                return self.head(tokens[:, 0])

        # 15 layers and 11 further calls are 26, and 24 is the most.
        layers = ["stem", *(f"blocks.{index}" for index in range(12)), "head"]
        assert layers_and_embedding(Shared()) == (layers, "blocks.11")

    def test_of_nested_modules_that_return_one_tensor_the_outermost_is_the_layer(self) -> None:
        class Around(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, maps: Tensor) -> Tensor:
                return self.inner(maps)

        convolutions = [Around(Around(nn.Conv2d(3, 3, 1))) for _ in range(6)]
        net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(768, 2))
        assert layers_and_embedding(net) == (["0", "1", "2", "3", "4", "5", "7"], "5")
        # What a user names is never merged.
        named, _ = layers_and_embedding(net, layers=["5", "5.inner", "5.inner.inner"])
        assert named == ["5.inner.inner", "5.inner", "5"]

    def test_a_block_with_a_sequence_inside_stays_whole_once_six_layers_stand(self) -> None:
        class Mixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.local, self.back = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)
                self.tokens = nn.Sequential(TokenBlock(4), TokenBlock(4))

            def forward(self, maps: Tensor) -> Tensor:
                tokens = self.tokens(self.local(maps).flatten(2).transpose(1, 2))
                return maps + self.back(tokens.transpose(1, 2).unflatten(2, maps.shape[2:]))

        net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), *(Mixed() for _ in range(4)), nn.Flatten(), nn.Linear(64, 2))
        assert layers_and_embedding(net) == (["0", "1", "2", "3", "4", "6"], "4")

    @pytest.mark.parametrize("name", ["ModelWithLoss", "MCDropout"])
    def test_a_model_is_no_loss_and_no_dropout_for_its_name(self, name: str) -> None:
        inner = type(name, (ResNet,), {})()
        names = ["conv1", *BLOCKS, "avgpool", "fc"]
        assert layers_and_embedding(nn.Sequential(inner, nn.Softmax(1)))[0] == [f"0.{name}" for name in names]

    def test_a_graph_module_is_grouped_by_its_prefixes(self) -> None:
        layers, embedding = layers_and_embedding(torch.fx.symbolic_trace(ResNet()))
        # A prefix takes no hooks: the last layer of its own way through stands for it, not that of the shortcut.
        assert layers == ["conv1", *(f"{block}.bn2" for block in BLOCKS), "avgpool", "fc"]
        assert embedding == "avgpool"


class TestEmbedding:
    def test_an_encoder_that_ends_in_a_residual_sum_has_its_last_block(self) -> None:
        assert layers_and_embedding(Encoder()) == (ENCODER, "blocks.5")

    def test_an_encoder_that_ends_in_a_norm_has_that(self) -> None:
        assert layers_and_embedding(NormedEncoder()) == ([*ENCODER, "norm"], "norm")

    @pytest.mark.parametrize("between", [nn.Dropout(0.5), nn.Flatten(), nn.Identity()])
    def test_what_passes_on_what_it_is_given_is_never_the_embedding(self, between: nn.Module) -> None:
        # The class token's values come out of `between` first, as the norm gave all tokens.
        assert layers_and_embedding(Classifier(between)) == ([*ENCODER, "norm", "head"], "norm")

    def test_a_transformer_with_a_dropped_class_token_has_its_norm(self) -> None:
        layers = ["patch_embed", *(f"blocks.{index}" for index in range(6)), "norm", "head"]
        assert layers_and_embedding(ViT()) == (layers, "norm")

    def test_of_hidden_states_beside_a_prediction_the_prediction_is_used(self) -> None:
        class WithHidden(Classifier):
            def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
                hidden = NormedEncoder.forward(self, images)
                return hidden, self.head(hidden[:, 0, None])

        assert layers_and_embedding(WithHidden(nn.Identity()))[1] == "norm"

    def test_of_a_pyramid_of_maps_the_last_counts(self) -> None:
        class Pyramid(Encoder):
            def forward(self, images: Tensor) -> list[Tensor]:
                tokens = [self.stem(images).flatten(2).transpose(1, 2)]
                for block in self.blocks:
                    tokens.append(block(tokens[-1]))
                return tokens

        assert layers_and_embedding(Pyramid()) == (ENCODER, "blocks.5")

    def test_hugging_faces_last_hidden_state_counts_and_not_what_is_pooled_from_it(self) -> None:
        class Pooled(NormedEncoder):
            def forward(self, images: Tensor) -> dict[str, Tensor]:
                tokens = Encoder.forward(self, images)
                return {"last_hidden_state": tokens, "pooler_output": self.norm(tokens[:, 0])}

        assert layers_and_embedding(Pooled()) == (ENCODER, "blocks.5")

    def test_of_boxes_and_classes_from_one_decoder_the_decoder_is_the_embedding(self) -> None:
        class Detector(NormedEncoder):
            def __init__(self) -> None:
                super().__init__()
                self.classes = nn.Linear(8, 3)
                self.boxes = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

            def forward(self, images: Tensor) -> dict[str, Tensor]:
                tokens = super().forward(images)
                return {"logits": self.classes(tokens), "pred_boxes": self.boxes(tokens), "last_hidden_state": tokens}

        assert layers_and_embedding(Detector())[1] == "norm"


class TestRows:
    def test_tokens_in_front_are_measured_as_with_images_in_front(self) -> None:
        class Tokens(nn.Module):
            def __init__(self, batch_first: bool) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.batch_first = batch_first
                self.stem = nn.Conv2d(3, 8, 4, 4)
                layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
                self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
                self.head = nn.Linear(8, 3)

            def forward(self, images: Tensor) -> Tensor:
                tokens = self.stem(images).flatten(2).transpose(1, 2)
                if self.batch_first:
                    return self.head(self.encoder(tokens)[:, 0])
                return self.head(self.encoder(tokens.transpose(0, 1))[0])

        first, second = probed(Tokens(batch_first=True)), probed(Tokens(batch_first=False))
        assert first.layers == second.layers
        assert first.metadata["embedding"] == second.metadata["embedding"] == "encoder.layers.3"
        torch.testing.assert_close(first.tensor("sensitivity"), second.tensor("sensitivity"), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("as_dict", [False, True])
    def test_two_images_in_one_batch_are_split_by_their_names(self, as_dict: bool) -> None:
        class Stereo(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder = nn.Conv2d(3, 4, 3, 2, 1)
                self.middle, self.head = nn.Conv2d(8, 4, 3, 1, 1), nn.Conv2d(4, 1, 1)

            def forward(self, *images) -> Tensor:
                left, right = images[0].values() if as_dict else images
                first, second = self.encoder(torch.cat([left, right])).chunk(2)
                return self.head(self.middle(torch.cat([first, second], 1)).relu())

        torch.manual_seed(0)
        left, right = IMAGES, IMAGES.flip(0)
        inputs = {"left": left, "right": right} if as_dict else (left, right)
        keys = ["left", "right"] if as_dict else [0, 1]
        names = ["left", "right"] if as_dict else ["image0", "image1"]
        net = Stereo()
        result = probed(net, inputs, image_keys=keys)
        assert list(result.layers) == [*(f"encoder[{name}]" for name in names), "middle", "head"]
        assert result.metadata["embedding"] == "middle"
        # Each is what an encoder of that image alone gives.
        alone = probed(nn.Sequential(net.encoder), left, layers="0")
        one = result.value("sensitivity", f"encoder[{names[0]}]")
        assert one == pytest.approx(alone.value("sensitivity", "0"), rel=1e-5)


class WithAct(nn.Module):
    """A convolution and an activation function that all of its kind share."""

    act = nn.SiLU()

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.act = WithAct.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Detector(nn.Module):
    """Blocks of two such convolutions, and a branch of two and a product for what is put out."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 4, 4, 4, 4, 4, 4]
        self.model = nn.ModuleList(nn.Sequential(WithAct(width, 4), WithAct(4, 4)) for width in widths[:-1])
        self.branch = nn.Sequential(WithAct(4, 4), WithAct(4, 4), nn.Conv2d(4, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.model:
            x = block(x)
        return self.branch(x)


def test_a_shared_activation_function_gives_way_to_the_module_that_returns_what_it_gave():
    blocks = [f"model.{index}" for index in range(6)]
    branch = [f"branch.{index}" for index in range(3)]
    assert layers_and_embedding(Detector()) == ([*blocks, *branch], "branch.1")


class OneReLU(nn.Module):
    """As many people write it: one ReLU for all."""

    def __init__(self, depth: int = 7) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if index == 0 else 4, 4, 3, padding=1) for index in range(depth))
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = self.relu(conv(x))
        return self.head(x.mean((2, 3)))


def test_of_one_that_stands_alone_the_call_in_front_of_the_head_counts():
    convs = [f"convs.{index}" for index in range(7)]
    net = OneReLU()
    assert layers_and_embedding(net) == ([*convs, "relu.call7", "head"], "relu.call7")
    # Where it is named, all of its calls are.
    named, _ = layers_and_embedding(net, layers=["auto", "relu"])
    assert [name for name in named if name.startswith("relu")] == ["relu", *(f"relu.call{n}" for n in range(2, 8))]


class Sparse(Encoder):
    """An encoder that also looks for points, of which it finds none."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Flatten(2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = super().forward(images)
        return torch.cat([tokens, self.points(tokens[:, :0])], 1)


def test_what_is_empty_is_no_layer():
    assert layers_and_embedding(Sparse()) == (ENCODER, ENCODER[-1])
    with pytest.raises(ValueError, match=r"no activation came from 'points' \(it is empty, \(4, 0, 8\)\)"):
        probed(Sparse(), layers=["stem", "points"])


class Experts(nn.Module):
    """Two experts, each of which sees the images that are bright enough, or the others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.bright = nn.Conv2d(4, 4, 1)
        self.dark = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps, chosen = self.stem(images), images.mean((1, 2, 3)) > 0.5
        out = torch.zeros_like(maps)
        out[chosen] = self.bright(maps[chosen])
        out[~chosen] = self.dark(maps[~chosen])
        return self.head(out.mean((2, 3)))


def test_auto_says_which_layers_it_passed_over_as_nobody_knows_where_the_images_are():
    with pytest.warns(UserWarning, match="'auto' passes over layers .* where the images are: bright, dark; metadata"):
        left_out = probed(Experts()).metadata["left_out"]
    assert {name: reason[:31] for name, reason in left_out.items()} == {
        "bright": "where the images are in it is n",
        "dark": "where the images are in it is n",
    }
    # What is named in another way is not asked of "auto".
    assert probed(Experts(), layers=["stem", "head"]).metadata["left_out"] == {}
