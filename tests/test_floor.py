"""The floor: bytes counted from real modules, published speed-of-light figures, and the tables of a small run."""

import io

import pytest
import torch
from models import EXPERTS, KINDS, eagle_decoder, prompts, random_head, tiny_target
from rich.console import Console
from test_cli import make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from eagle_decoding import TreeConfig
from eagle_decoding.checkpoint import Head, HeadConfig
from eagle_decoding.cli import app
from eagle_decoding.drafts import Eagle3Draft, NoDraft
from eagle_decoding.floor.ceilings import Ceilings, measure_ceilings
from eagle_decoding.floor.report import MeasuredRound, phase_table, speed_table, verdict
from eagle_decoding.floor.run import measure_round, run_floor
from eagle_decoding.floor.speed import Floor
from eagle_decoding.floor.work import Layers, round_model, streamed_elements
from eagle_decoding.terminal.models import Models

H200 = Ceilings(threads=1, dtype="bfloat16", copy_bandwidth=4.3e12, read_bandwidth=4.3e12, flops_per_second=6.4e14)


@pytest.fixture(scope="module")
def llama_8b() -> Floor:
    """Llama-3.1-8B with its EAGLE-3 head on the meta device, on an H200 at 4.3 TB/s."""
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        target = LlamaForCausalLM(config).to(torch.bfloat16)
    head = HeadConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        vocab_size=128256,
        draft_vocab_size=32000,
        target_hidden_size=4096,
    )
    tree, meta = TreeConfig(num_nodes=60, max_depth=8, topk=10), torch.device("meta")
    tensors = {name: torch.empty(shape, device=meta) for name, shape in head.tensor_shapes().items()}
    draft = Eagle3Draft(Head(head, tensors), target.get_input_embeddings().weight, 32, tree, torch.bfloat16, meta)
    return Floor(round_model(target, draft), H200, tree, context_len=1024)


def test_an_8b_model_is_counted_as_published(llama_8b):
    target, model = llama_8b.model.target, llama_8b.model
    assert target.weight_bytes == pytest.approx(15.01e9, rel=1e-3)
    assert target.kv_bytes == 128 * 1024
    assert model.layer.weight_bytes + model.lm_head.weight_bytes == pytest.approx(749e6, rel=1e-3)
    assert model.fc.weight_bytes == pytest.approx(2 * 50.3e6, rel=1e-3)
    assert 1 / llama_8b.plain_seconds() == pytest.approx(284, rel=5e-3)


def test_the_speed_of_light_of_an_8b_model(llama_8b):
    """At 6.23 tokens per round and eight draft forwards: 4.44x, 1262 tokens a second."""
    assert llama_8b.speed_up(6.23) == pytest.approx(4.44, rel=0.02)
    assert 6.23 / llama_8b.round_seconds(6.23) == pytest.approx(1262, rel=0.02)
    assert llama_8b.speed_up(1) < 1
    with pytest.raises(ValueError, match="emits 1 to 9 tokens"):
        llama_8b.speed_up(9.5)


def test_a_phase_takes_the_longer_of_bytes_and_operations():
    assert H200.floor(4.3e12, 0) == pytest.approx(1)
    assert H200.floor(4.3e12, 3 * 6.4e14) == pytest.approx(3)


def test_work_grows_with_rows_context_and_batch():
    layers = Layers(weight_bytes=1000, flops_per_row=10, kv_bytes=2, attention_flops=3)
    one = layers.forward(rows=1, context_len=4)
    assert (one.bytes, one.flops) == (1000 + 2 * 5, 10 + 3 * 5)
    many = layers.forward(rows=3, context_len=4, batch=2)
    assert (many.bytes, many.flops) == (1000 + 2 * 2 * 7, 2 * 3 * (10 + 3 * 7))
    assert (one + one * 2).bytes == 3 * one.bytes


def test_a_window_bounds_what_its_layers_read():
    target = tiny_target("gemma3")  # three of four layers have a window of 128
    work = round_model(target, eagle_decoder(target).draft).target
    row = work.kv_bytes / 4
    assert work.forward(9, 100).bytes == work.weight_bytes + 4 * row * 109
    assert work.forward(9, 1000).bytes == work.weight_bytes + row * (1009 + 3 * (128 + 9))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in EXPERTS])
def test_streamed_weights_are_those_a_forward_multiplies(kind):
    """Linear layers and norms, the output projection once whether or not it is the embedding."""
    target = tiny_target(kind)
    used = [m for m in target.modules() if isinstance(m, torch.nn.Linear) or "Norm" in type(m).__name__]
    assert streamed_elements(target) == sum(p.numel() for m in used for p in m.parameters())


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_mixture_of_experts_is_refused(kind):
    """How many experts a tree's rows reach depends on the text."""
    decoder = eagle_decoder(tiny_target(kind))
    with pytest.raises(ValueError, match=f"dense targets, not for '{kind.replace('-', '_')}'"):
        round_model(decoder.target, decoder.draft)


@pytest.mark.parametrize("options", [{"attention_bias": True, "fc_norm": True}, {"norm_before_fc": True}])
@pytest.mark.parametrize("served", [None, torch.float8_e4m3fn], ids=["wide", "fp8"])
def test_head_bytes_are_those_of_the_weights_as_they_are_stored(served, options):
    """fp8 matrices take a byte an element and a float32 scale an output, all else bfloat16; operations are the same."""
    target = tiny_target(dtype=torch.bfloat16)
    head = random_head(target, 60, **options)
    embedding = target.get_input_embeddings().weight
    draft = Eagle3Draft(head, embedding, 4, TreeConfig(), target.dtype, target.device, served)
    model = round_model(target, draft)
    for part, prefixes in {"layer": "layers.0.", "fc": ("fc", "input_norm"), "lm_head": ("lm_head", "norm.")}.items():
        shapes = [torch.Size(s) for name, s in head.config.tensor_shapes().items() if name.startswith(prefixes)]
        matrices, vectors = ([s for s in shapes if len(s) == dims] for dims in (2, 1))
        elements = sum(s.numel() for s in matrices)
        of_matrices = elements + 4 * sum(s[0] for s in matrices) if served else 2 * elements
        counted = getattr(model, part)
        assert counted.weight_bytes == of_matrices + 2 * sum(s.numel() for s in vectors), part
        assert counted.flops_per_row == 2 * elements, part
    assert model.layer.kv_bytes == 2 * 2 * 8 * 2 and model.layer.attention_flops == 4 * 4 * 8


def test_tables_hold_the_floor_and_the_measurement(llama_8b):
    phases = {"draft": 2e-3, "verify": 4e-3, "sample": 1e-4, "commit": 1e-4, "output": 1e-4}
    measured = MeasuredRound(5.0, phases, plain_seconds=4e-3)
    assert measured.speed_up == pytest.approx(5 * 4 / 6.3)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(phase_table(llama_8b, measured), speed_table(llama_8b, measured), verdict(llama_8b, measured))
    text = console.export_text()
    assert "15," in text and "plain round" in text and "5.00" in text
    assert f"{llama_8b.speed_up(5):.2f}x is possible" in " ".join(text.split())


def test_a_run_on_a_tiny_model():
    decoder = eagle_decoder(tiny_target())
    inputs = {key: tensor[:1] for key, tensor in prompts(1).items()}
    measured = measure_round(decoder, inputs, max_new_tokens=12)
    assert 1 <= measured.tokens_per_round <= 4 and measured.plain_seconds > 0
    assert set(measured.phases) == {"draft", "verify", "sample", "commit", "output"}


def test_the_command_prints_where_a_round_stands(monkeypatch, capsys):
    monkeypatch.setattr("eagle_decoding.floor.run.measure_ceilings", lambda dtype, device: H200)
    decoder = eagle_decoder(tiny_target())
    run_floor(Models(decoder, make_tokenizer()), "w5 w6 w7", 12)
    shown = " ".join(capsys.readouterr().out.split())
    assert "cpu, 1 threads: copy 4300.0 GB/s" in shown and "of the speed of light, plain decoding at" in shown
    decoder.draft = NoDraft()
    with pytest.raises(ValueError, match="EAGLE-3 heads, not for NoDraft"):
        run_floor(Models(decoder, None), "", 8)
    refused = CliRunner().invoke(app, ["bench"])
    assert refused.exit_code == 1 and "or --floor" in refused.stderr


def test_ceilings_are_measured_where_asked(monkeypatch):
    monkeypatch.setattr("eagle_decoding.floor.ceilings.COPY_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr("eagle_decoding.floor.ceilings.MATMUL_SIZE", {"cpu": 64})
    ceilings = measure_ceilings(torch.float32, "cpu", repeats=3)
    assert ceilings.threads == torch.get_num_threads() and ceilings.dtype == "float32"
    assert ceilings.bandwidth == max(ceilings.copy_bandwidth, ceilings.read_bandwidth) > 0


def test_a_type_that_is_slow_on_small_products_is_asked_for_no_large_ones(monkeypatch):
    asked = set()

    def product(size: int, kind: torch.dtype, device: str):
        asked.add((size, kind))
        return lambda: 0.4 if kind == torch.bfloat16 else 0.2

    def seconds_it_says(call):
        said = call()
        return said if isinstance(said, float) else 0.1  # a copy's or a sum's tensor

    monkeypatch.setattr("eagle_decoding.floor.ceilings.matrix_product", product)
    monkeypatch.setattr("eagle_decoding.floor.ceilings.seconds_on_host", seconds_it_says)
    ceilings = measure_ceilings(torch.bfloat16, "cpu", repeats=3)
    assert asked == {(192, torch.bfloat16), (192, torch.float32), (1536, torch.float32)}
    assert ceilings.flops_per_second == 2 * 1536**3 / 0.2
