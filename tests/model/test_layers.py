from __future__ import annotations

import kornia.augmentation as K  # noqa: N812 - Kornia's own idiom
import pytest
import torch
import torchmetrics
from support.nets import BasicBlock, HuggingViT, ResNet, SharedTwice, TokenBlock, UNet, ViT
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub, convert, get_default_qconfig, prepare
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel

from kornia_lightning_probe.model.layers import clean_name, exact_names, select_layers
from kornia_lightning_probe.model.recorder import ActivationRecorder

RESNET_BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


class TestSelectors:
    def test_a_name_chooses_one_layer(self) -> None:
        net = ResNet()
        assert select_layers(net, "layer2.0") == {"layer2.0": net.layer2[0]}

    def test_a_glob_crosses_dots(self) -> None:
        assert list(select_layers(ResNet(), "layer[34]*conv2")) == [
            f"layer{s}.{b}.conv2" for s in (3, 4) for b in (0, 1)
        ]

    def test_a_regex_must_match_the_whole_name(self) -> None:
        assert list(select_layers(ResNet(), r"re:layer[34]\.\d")) == ["layer3.0", "layer3.1", "layer4.0", "layer4.1"]

    def test_a_type_chooses_its_instances(self) -> None:
        assert list(select_layers(ResNet(), BasicBlock)) == RESNET_BLOCKS

    def test_a_predicate_sees_name_and_module(self) -> None:
        chosen = select_layers(ResNet(), lambda name, module: name.endswith("0.conv1") and module.stride == (2, 2))
        assert list(chosen) == ["layer2.0.conv1", "layer4.0.conv1"]

    def test_a_list_keeps_the_models_order_and_takes_each_layer_once(self) -> None:
        chosen = select_layers(ResNet(), ["fc", "layer1.0.*n1", "layer1.0", BasicBlock, "conv1"])
        assert list(chosen) == ["conv1", "layer1.0", "layer1.0.bn1", *RESNET_BLOCKS[1:], "fc"]

    def test_auto_in_a_list_is_auto(self) -> None:
        net = ResNet()
        assert list(select_layers(net, ["auto", "bn1"])) == ["conv1", "bn1", *RESNET_BLOCKS, "avgpool", "fc"]

    def test_only_names_given_as_such_are_exact(self) -> None:
        chosen = ["fc", "layer1.?", nn.Conv2d, "re:bn1", "layer4", lambda name, _: name == "relu", "auto"]
        assert exact_names(ResNet(), chosen) == {"fc", "layer4"}
        assert exact_names(ResNet()) == frozenset()

    def test_a_container_that_never_runs_is_chosen_by_name_only(self) -> None:
        net = HuggingViT(depth=2)
        assert list(select_layers(net, "encoder.layer")) == ["encoder.layer"]
        assert list(select_layers(net, "encoder.l*.attn")) == ["encoder.layer.0.attn", "encoder.layer.1.attn"]
        assert "encoder.layer" not in select_layers(net, "*")

    def test_a_shared_module_goes_by_its_first_name(self) -> None:
        net = nn.Module()
        net.one = net.two = nn.Linear(2, 2)
        net.inner = nn.Sequential(net.one)
        assert list(select_layers(net, "*")) == ["one", "inner"]
        assert list(select_layers(net, ["two", "inner.0"])) == ["one"]
        assert exact_names(net, "inner.0") == {"one"}


class TestNames:
    def test_wrappers_are_no_part_of_a_name(self) -> None:
        net = ViT(depth=3)
        for i in range(3):
            net.blocks[i] = checkpoint_wrapper(net.blocks[i])
        model = nn.DataParallel(torch.compile(net, backend="eager"))
        names = ["patch_embed", "blocks.0", "blocks.1", "blocks.2", "norm", "head"]
        assert list(select_layers(model)) == names
        assert list(select_layers(model, TokenBlock)) == names[1:4]
        assert all(isinstance(block, TokenBlock) for block in select_layers(model, "blocks.?").values())

    def test_a_wrapper_inside_the_model_is_stripped_too(self) -> None:
        net = nn.Sequential(nn.DataParallel(nn.Sequential(nn.Linear(2, 2))), nn.Linear(2, 2))
        assert list(select_layers(net, nn.Linear)) == ["0.0", "1"]

    def test_a_name_with_its_wrappers_is_understood(self) -> None:
        model = nn.DataParallel(torch.compile(ResNet(), backend="eager"))
        assert list(select_layers(model, ["module._orig_mod.fc", "_orig_mod.conv1"])) == ["conv1", "fc"]
        assert exact_names(model, "module._orig_mod.layer1") == {"layer1"}

    def test_an_attribute_that_somebody_has_called_module_stays(self) -> None:
        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.module = nn.Linear(2, 2)

            def forward(self, x: Tensor) -> Tensor:
                return x + self.module(x)

        net = nn.Sequential(Residual(), Residual())
        assert list(select_layers(net, "*")) == ["0", "0.module", "1", "1.module"]

    @pytest.mark.parametrize(
        ("dotted", "clean"),
        [
            ("module.fc", "fc"),
            ("_orig_mod.module.layer1.0", "layer1.0"),
            ("a._fsdp_wrapped_module.b._checkpoint_wrapped_module.c", "a.b.c"),
            ("blocks.0.module", "blocks.0.module"),
            ("modules.0", "modules.0"),
        ],
    )
    def test_clean_name_strips_wrappers(self, dotted: str, clean: str) -> None:
        assert clean_name(dotted) == clean

    def test_parametrizations_are_no_layers(self) -> None:
        net = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), weight_norm(nn.Linear(4, 2)))
        assert list(select_layers(net, "*")) == ["0", "1"]
        assert list(select_layers(net, nn.Conv2d)) == ["0"]
        assert list(select_layers(net)) == ["0", "1"]
        with pytest.raises(ValueError, match=r"no layer matches '0.parametrizations.weight'"):
            select_layers(net, "0.parametrizations.weight")


class TestAuto:
    def test_a_residual_net_gives_its_blocks(self) -> None:
        assert list(select_layers(ResNet())) == ["conv1", *RESNET_BLOCKS, "avgpool", "fc"]

    def test_a_very_deep_residual_net_gives_its_stages(self) -> None:
        names = ["conv1", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
        assert list(select_layers(ResNet((3, 8, 36, 3), width=1))) == names

    def test_a_single_block_stage_is_named_like_its_peers(self) -> None:
        names = [name for name in select_layers(ResNet((1, 2, 3, 1))) if name.startswith("layer")]
        assert names == ["layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer3.2", "layer4.0"]

    def test_a_transformer_gives_its_blocks(self) -> None:
        names = ["patch_embed", *(f"blocks.{i}" for i in range(6)), "norm", "head"]
        assert list(select_layers(ViT())) == names

    def test_a_shallow_transformer_keeps_its_blocks_whole(self) -> None:
        assert list(select_layers(ViT(depth=2))) == ["patch_embed", "blocks.0", "blocks.1", "norm", "head"]

    def test_of_many_blocks_every_second_is_taken_to_the_last(self) -> None:
        names = ["patch_embed", *(f"blocks.{i}" for i in range(1, 24, 2)), "norm", "head"]
        assert list(select_layers(ViT(depth=24, width=2))) == names

    def test_a_module_list_gives_what_is_in_it(self) -> None:
        names = ["embeddings", *(f"encoder.layer.{i}" for i in range(6)), "layernorm", "classifier"]
        assert list(select_layers(HuggingViT())) == names

    def test_a_unet_gives_its_levels(self) -> None:
        assert list(select_layers(UNet())) == ["inc", "down1", "down2", "down3", "up1", "up2", "up3", "outc"]

    def test_a_plain_stack_gives_its_weighted_layers_and_what_goes_into_the_head(self) -> None:
        net = nn.Sequential(nn.Flatten(), *(m for _ in range(2) for m in (nn.Linear(4, 4), nn.ReLU())), nn.Linear(4, 2))
        assert list(select_layers(net)) == ["1", "3", "4", "5"]

    def test_a_stack_of_sixty_is_thinned_evenly(self) -> None:
        # ceil(59 / 23) = 3: every third, counted back from the last.
        net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(60)))
        assert list(select_layers(net)) == ["0", *map(str, range(2, 60, 3))]

    def test_a_stack_of_sixty_before_a_head_keeps_its_last_layer(self) -> None:
        net = nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(60)), nn.Linear(2, 2))
        assert list(select_layers(net))[-3:] == ["56", "59", "60"]

    def test_features_and_classifier_are_both_opened(self) -> None:
        net = nn.Module()
        net.features = nn.Sequential(*(m for _ in range(4) for m in (nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2))))
        net.avgpool = nn.AdaptiveAvgPool2d(2)
        net.classifier = nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2))
        convolutions = [f"features.{i}" for i in (0, 3, 6, 9)]
        assert list(select_layers(net)) == [*convolutions, "classifier.0", "classifier.1", "classifier.3"]

    def test_a_head_with_its_own_norm_is_taken_apart(self) -> None:
        net = ViT()
        net.norm = nn.Identity()
        net.head = nn.Sequential(nn.LayerNorm(8), nn.Dropout(), nn.Linear(8, 2))
        assert list(select_layers(net))[-3:] == ["blocks.5", "head.0", "head.2"]

    def test_a_softmax_after_the_head_is_not_the_head(self) -> None:
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2), nn.Softmax(1)))
        assert list(select_layers(net)) == ["0", "2.0", "2.1"]

    def test_two_towers_are_opened_together(self) -> None:
        net = nn.ModuleDict({"left": ResNet(), "right": ResNet()})
        left, right = ([f"{side}.{name}" for name in ("conv1", *RESNET_BLOCKS)] for side in net)
        assert list(select_layers(net)) == [*left, "left.fc", *right, "right.avgpool", "right.fc"]

    def test_blocks_with_lists_of_heads_in_them_stay_whole(self) -> None:
        class Heads(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.heads = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(3))

            def forward(self, x: Tensor) -> Tensor:
                return x + sum(head(x) for head in self.heads)

        assert list(select_layers(nn.Sequential(*(Heads() for _ in range(6))))) == [str(i) for i in range(6)]

    def test_what_is_no_part_of_the_net_is_passed_over(self) -> None:
        class PerceptualLoss(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = ResNet()

        model = nn.Module()
        model.augment = K.AugmentationSequential(K.RandomHorizontalFlip(), data_keys=["input"])
        model.train_augment = nn.Sequential(K.RandomRotation(5.0))
        model.net = ResNet()
        model.accuracy = torchmetrics.MetricCollection([torchmetrics.classification.BinaryAccuracy()])
        model.criterion = nn.CrossEntropyLoss()
        model.perceptual = PerceptualLoss()
        model.aux_loss = nn.Sequential(nn.Linear(2, 2))
        model.ema = AveragedModel(ResNet())
        names = ["conv1", *RESNET_BLOCKS, "avgpool", "fc"]
        assert list(select_layers(model)) == [f"net.{name}" for name in names]

    def test_a_net_without_weights_gives_its_modules(self) -> None:
        assert list(select_layers(nn.Sequential(nn.AvgPool2d(2), nn.Dropout(), nn.Flatten()))) == ["0", "2"]

    def test_lazy_modules_count_before_they_know_their_size(self) -> None:
        net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        assert list(select_layers(net)) == ["0", "3", "4"]

    def test_a_layer_of_ones_own_counts_by_its_weight(self) -> None:
        class Scale(nn.Module):
            def __init__(self, *shape: int) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(*shape))

            def forward(self, x: Tensor) -> Tensor:
                return x * self.weight

        class RowNorm(Scale): ...

        net = nn.Sequential(Scale(2, 2), Scale(2), Scale(2, 2), RowNorm(2, 2), Scale(2, 2))
        assert list(select_layers(net)) == ["0", "2", "3", "4"]

    def test_a_block_that_uses_its_childrens_weights_itself_stays(self) -> None:
        class Weight(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.value = nn.Parameter(torch.ones(2, 2))

        class Product(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.left, self.right = Weight(), Weight()

            def forward(self, x: Tensor) -> Tensor:
                return x @ self.left.value @ self.right.value

        assert list(select_layers(nn.Sequential(Product(), nn.Linear(2, 2)))) == ["0", "1"]

    @pytest.mark.parametrize("net", [ResNet(), ViT(), UNet(), HuggingViT(), ViT(depth=24, width=2)])
    def test_every_layer_runs_in_the_models_order(self, net: nn.Module) -> None:
        chosen = select_layers(net)
        assert 6 <= len(chosen) <= 24
        with torch.no_grad(), ActivationRecorder(chosen) as recorder:
            net.eval()(torch.zeros(2, 3, 16, 16))
        assert recorder.calls == dict.fromkeys(chosen, 1)
        assert list(recorder.calls) == list(chosen)

    @pytest.mark.parametrize("attribute", ["net", "criterion"])
    @pytest.mark.parametrize("frozen", [False, True])
    @pytest.mark.parametrize("name", ["ModelWithLoss", "MCDropout", "LossMetrics"])
    def test_what_holds_most_weights_is_no_loss_whatever_its_name(
        self, name: str, frozen: bool, attribute: str
    ) -> None:
        inner = type(name, (ResNet,), {})()
        model = nn.ModuleDict({attribute: inner, "head": nn.Linear(5, 2)}).requires_grad_(not frozen)
        expected = ["conv1", *RESNET_BLOCKS]
        assert list(select_layers(model)) == [*(f"{attribute}.{name}" for name in expected), f"{attribute}.fc", "head"]

    def test_a_loss_of_a_large_frozen_net_or_with_large_weights_of_its_own_stays_a_loss(self) -> None:
        class PerceptualLoss(ResNet): ...

        class ProxyLoss(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.proxies = nn.Parameter(torch.zeros(100, 100))

        model = nn.Module()
        model.net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
        model.perceptual = PerceptualLoss(width=16).requires_grad_(False)
        model.proxy = ProxyLoss()
        assert list(select_layers(model)) == ["net.0", "net.2", "net.3", "net.4"]

    @pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
    @pytest.mark.filterwarnings("ignore:must run observer before calling calculate_qparams:UserWarning")
    @pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning")
    def test_quantised_layers_are_layers_and_give_floats(self) -> None:
        quantised = nn.Sequential(QuantStub(), *(nn.Conv2d(3, 3, 1) for _ in range(3)), DeQuantStub()).eval()
        quantised.qconfig = get_default_qconfig(torch.backends.quantized.engine)
        model = nn.Sequential(convert(prepare(quantised)), nn.Flatten(), nn.Linear(12, 2))
        with torch.no_grad(), ActivationRecorder(model) as recorder:
            model(torch.rand(5, 3, 2, 2))
        assert list(recorder.activations) == ["0.1", "0.2", "0.3", "1", "2"]
        assert all(activation.is_floating_point() for activation in recorder.activations.values())

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")
    def test_scripted_modules_are_passed_over(self) -> None:
        net = nn.Sequential(torch.jit.script(nn.Linear(2, 2)), nn.Linear(2, 2), nn.Linear(2, 2))
        assert list(select_layers(net)) == ["1", "2"]

    def test_a_module_called_twice_is_chosen_once(self) -> None:
        assert list(select_layers(SharedTwice())) == ["shared", "fc"]


class TestErrors:
    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            ("layer5", r"no layer matches 'layer5'; near names: '(layer\d)'"),
            ("stage*", "no layer matches 'stage\\*'; its names begin with 'conv1', 'bn1', 'relu'"),
            ("re:layr1", "no layer matches 're:layr1'; near names: 'layer1'"),
            ("downsample", "near names: 'layer1.0.downsample'"),
            ("", "no layer matches ''; its names begin with"),
            ("re:layer[", "is not a valid regular expression: unterminated character set"),
            (nn.GRU, "no layer is a GRU; the model has AdaptiveAvgPool2d, BasicBlock,"),
            (lambda *_: False, "no layer satisfies the predicate .*lambda.*; the model has"),
            ([], "layers is empty"),
            (["fc", "cf"], "no layer matches 'cf'; near names: 'fc'"),
        ],
    )
    def test_what_matches_nothing_says_what_is_near(self, layers: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            select_layers(ResNet(), layers)  # type: ignore[arg-type]  # what comes in is what is tested

    @pytest.mark.parametrize("layers", [3, ["fc", None], int, {"fc"}])
    def test_what_is_no_selector_is_refused(self, layers: object) -> None:
        with pytest.raises(TypeError, match=r"expected a name, a glob, 're:\.\.\.', a type of module, a predicate"):
            select_layers(ResNet(), layers)  # type: ignore[arg-type]  # what comes in is what is tested

    def test_a_module_itself_is_refused_with_its_name(self) -> None:
        net = ResNet()
        with pytest.raises(TypeError, match="not by the module itself; pass 'layer3'"):
            select_layers(net, [net.layer3])
        with pytest.raises(TypeError, match="pass its name"):
            select_layers(net, [nn.Linear(2, 2)])

    def test_a_pattern_for_containers_only_points_into_them(self) -> None:
        with pytest.raises(ValueError, match=r"containers that never run: 'encoder.layer'; .* 'encoder.layer.0'"):
            select_layers(HuggingViT(), nn.ModuleList)

    def test_a_model_without_submodules_is_refused(self) -> None:
        with pytest.raises(
            ValueError, match=r"Linear has no submodules to choose from; wrap it: nn.Sequential\(model\)"
        ):
            select_layers(nn.Linear(2, 2))

    @pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
    def test_a_model_in_torchscript_points_to_what_it_was_made_of(self) -> None:
        net = nn.Sequential(nn.Linear(2, 2))
        for scripted in (torch.jit.script(net), torch.jit.trace(net, torch.ones(1, 2))):
            with pytest.raises(ValueError, match="is TorchScript, whose modules take no hooks; probe the model that"):
                select_layers(scripted)

    @pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
    def test_an_exported_program_points_to_what_it_was_made_of_and_to_unflatten(self) -> None:
        net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
        program = torch.export.export(net, (torch.ones(1, 2),))
        with pytest.raises(ValueError, match=r"exported program, which runs as one graph.*torch.export.unflatten"):
            select_layers(program.module())
        unflattened = torch.export.unflatten(program)
        with torch.no_grad(), ActivationRecorder(select_layers(unflattened, "*")) as recorder:
            unflattened(torch.ones(1, 2))
        assert list(recorder.activations) == ["0", "1", "2"]

    def test_what_is_no_model_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"model is a str, expected an nn\.Module"):
            select_layers("resnet18")  # type: ignore[arg-type]  # what comes in is what is tested

    def test_auto_with_nothing_to_look_at_is_refused(self) -> None:
        with pytest.raises(ValueError, match="finds nothing to look at in Sequential; name its layers"):
            select_layers(nn.Sequential(nn.Dropout(), nn.Identity()))
