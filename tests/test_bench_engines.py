"""The benchmark against other engines, without one: processes that answer as they do, its numbers, and its errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models import eagle_decoder, random_head, tiny_target
from test_bench_decode import saved  # noqa: F401  (a fixture)
from typer.testing import CliRunner

from bench.command import command
from bench.engines import __main__ as engines
from bench.engines import vllm_worker
from bench.engines.engine import Answer
from bench.engines.llama_server import LlamaServer, llama_arms, llama_version
from bench.engines.speeds import speed, tokens_per_round, total
from bench.engines.texts import against_float32, chain_size
from bench.engines.vllm_engine import Vllm, vllm_arms
from eagle_decoding import TreeConfig

SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

arguments = dict(zip(sys.argv, sys.argv[1:]))
if "--version" in arguments or sys.argv[-1] == "--version":
    sys.exit(print("version: 7 (abc)", file=sys.stderr))
if arguments["-m"].endswith("broken.gguf"):
    sys.exit("cannot read the model")


class Handler(BaseHTTPRequestHandler):
    waits = 2

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        Handler.waits -= 1
        self.answer(503 if Handler.waits > 0 else 200, {"status": "ok"})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not asked["prompt"]:
            return self.answer(400, {"error": "empty prompt"})
        count = asked["n_predict"]
        assert asked["temperature"] == 0 and not asked["cache_prompt"] and asked["return_tokens"]
        timings = {"prompt_ms": 500.0, "predicted_ms": 2000.0, "predicted_n": count}
        if "draft-eagle3" in sys.argv:
            timings |= {"draft_n": 6, "draft_n_accepted": 3}
        self.answer(200, {"tokens": list(range(count)), "timings": timings})

    def log_message(self, *arguments):
        pass


HTTPServer(("127.0.0.1", int(arguments["--port"])), Handler).serve_forever()
"""

WORKER = """
import json, os, sys

settings = json.loads(sys.argv[2])
if settings["model"] == "broken":
    sys.exit("cannot read the model")
assert os.environ["OMP_NUM_THREADS"] == "2" and settings["max_num_seqs"] == 1
print(json.dumps({"version": "9"}), flush=True)
for line in sys.stdin:
    count = json.loads(line)["new_tokens"]
    rounds = 2 if "speculative_config" in settings else count - 1
    reply = {"tokens": list(range(count)), "steps": count - 1, "rounds": rounds, "prompt_seconds": 0.5, "seconds": 4.0}
    print(json.dumps(reply), flush=True)
"""


def program(folder: Path, name: str, source: str) -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable}{source}")
    path.chmod(0o755)
    return path


@pytest.fixture
def server(tmp_path):
    return program(tmp_path, "llama-server", SERVER)


@pytest.fixture
def python(tmp_path):
    return program(tmp_path, "python", WORKER)


def test_a_llama_server_is_timed_by_itself(server, tmp_path):
    running = LlamaServer(server, tmp_path / "target.gguf", ["--spec-type", "draft-eagle3"], 2, 100)
    assert running.ask([1, 2], 8) == Answer(list(range(8)), steps=7, rounds=4, prompt_seconds=0.5, seconds=2.0)
    assert running.cpu_seconds() > 0
    with pytest.raises(ValueError, match=r"refuses a prompt: .*empty prompt"):
        running.ask([], 8)
    running.close()
    assert running.child.process.poll() is not None
    assert llama_version(server) == "7 (abc)"


def test_a_vllm_engine_counts_its_rounds(python):
    running = Vllm(python, "target", {"method": "eagle3"}, 2, 100, "")
    assert running.version == "9"
    assert running.ask([1, 2], 5) == Answer(list(range(5)), steps=4, rounds=2, prompt_seconds=0.5, seconds=4.0)
    running.close()
    assert running.child.process.poll() is not None


def test_an_engine_that_ends_says_why(server, python, tmp_path):
    with pytest.raises(ValueError, match=r"llama-server ended, see .*\.log: cannot read the model"):
        LlamaServer(server, tmp_path / "broken.gguf", [], 2, 100)
    with pytest.raises(ValueError, match=r"vLLM ended, see .*\.log: cannot read the model"):
        Vllm(python, "broken", None, 2, 100, "")
    with pytest.raises(ValueError, match="llama-server does not start"):
        LlamaServer(tmp_path / "missing", tmp_path / "target.gguf", [], 2, 100)


def test_the_worker_counts_drafts_of_its_engine():
    class Metric:
        def __init__(self, name, value):
            self.name, self.value = name, value

    metrics = [Metric("vllm:spec_decode_num_drafts", 5), Metric("vllm:spec_decode_num_draft_tokens", 15)]
    assert vllm_worker.drafts(metrics) == 5 and vllm_worker.drafts([]) == 0


def test_every_engine_drafts_the_same_chains():
    llama = llama_arms(Path("t"), Path("h"), Path("q"), [2, 3])
    assert [name for name, _, _ in llama] == [
        "llama.cpp, plain",
        "llama.cpp, chain 3/2/1",
        "llama.cpp, chain 4/3/1",
        "llama.cpp, n-grams",
        "llama.cpp, plain, quantised",
    ]
    assert llama[2][2][-2:] == ["--spec-draft-n-max", "3"] and llama[-1][1] == Path("q")
    assert [name for name, _, _ in llama_arms(Path("t"), None, None, [2])] == ["llama.cpp, plain", "llama.cpp, n-grams"]
    assert dict(vllm_arms("h", [3]))["vLLM, chain 4/3/1"] == {
        "method": "eagle3",
        "model": "h",
        "num_speculative_tokens": 3,
    }


class Fixed:
    """Answers every prompt alike, and computes a second while others decode."""

    def __init__(self, tokens: list[int], rounds: int):
        self.answer, self.seconds = Answer(tokens, len(tokens) - 1, rounds, 0.5, 2.0), 0.0

    def ask(self, prompt, new_tokens):
        return self.answer

    def cpu_seconds(self):
        self.seconds += 1.0
        return self.seconds

    def close(self):
        pass


def test_sums_speeds_and_shares():
    arms = {"first": Fixed([3, 4, 5, 0], 3), "same": Fixed([3, 4, 5], 1), "other": Fixed([3, 4, 6, 0], 3)}
    result, texts = engines.measured(arms, [("a", [1]), ("a", [2]), ("b", [1])], 4, end=0)
    assert result["equal_texts"] == {"first": 1.0, "same": 1.0, "other": 0.0}, "the end of a text is no difference"
    assert texts["first"] == texts["same"] == [[3, 4, 5]] * 3
    assert result["idle_cpu_seconds"]["same"] == 3.0
    assert result["files"]["a"]["first"] == {
        "prompts": 2,
        "steps": 6,
        "rounds": 6,
        "prompt_seconds": 1.0,
        "seconds": 4.0,
    }
    whole = total(by_engine["same"] for by_engine in result["files"].values())
    assert speed(whole) == 1.0 and tokens_per_round(whole) == 2.0
    assert speed({"steps": 0, "seconds": 0.0}) == 0.0 and tokens_per_round({"steps": 0, "rounds": 0}) == 1.0


def test_float32_tells_how_near_another_token_was():
    target = tiny_target()
    prompt = [3, 4, 5]
    greedy = target.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=False, eos_token_id=None)[0, 3:]
    other = [*greedy[:2].tolist(), int(target(torch.tensor([[*prompt, *greedy[:2]]])).logits[0, -1].argmin())]
    head = random_head(target, draft_vocab=60)
    found = against_float32(target, head, [prompt], {"greedy": [greedy.tolist()], "other": [other]})
    assert found["greedy"] == {"tokens": 4, "other_choices": 0, "worst_gap": 0.0}
    assert found["other"]["other_choices"] == 1 and found["other"]["worst_gap"] > 0


def test_a_chain_walks_the_text_in_the_rounds_that_decoding_takes():
    target = tiny_target()
    torch.manual_seed(1)
    decoder = eagle_decoder(target, TreeConfig(4, 3, 1))
    torch.manual_seed(1)
    head = random_head(target)
    text = decoder.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=40, do_sample=False)[0, 3:].tolist()
    name = "here, chain 4/3/1"
    found = against_float32(target, head, [[3, 4, 5]], {name: [text]})
    assert chain_size(name) == 3 and chain_size("here, tree 8/4/4") == 0
    assert found[name]["rounds"] == decoder.stats.rounds


def test_the_command_on_a_tiny_target(saved, server, python, tmp_path):  # noqa: F811  (the fixture)
    out = tmp_path / "engines.json"
    given = [saved / "target", saved / "head", "--data", saved / "questions", "--out", out]
    given += ["--llama-server", server, "--target-gguf", "t.gguf", "--head-gguf", "h.gguf", "--vllm-python", python]
    given += ["--prompts", "1", "--new-tokens", "6", "--drafts", "2", "--threads", "2"]
    run = subprocess.run(
        [sys.executable, "-m", "bench.engines", *map(str, given)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(out.read_text())
    assert result["machine"]["engines"] == {"llama.cpp": "7 (abc)", "vLLM": "9"}
    assert list(result["files"]["one"]) == [
        "here, plain",
        "here, tree 8/4/4",
        "here, chain 3/2/1",
        "llama.cpp, plain",
        "llama.cpp, chain 3/2/1",
        "llama.cpp, n-grams",
        "vLLM, plain",
        "vLLM, chain 3/2/1",
    ]
    assert result["equal_texts"]["here, tree 8/4/4"] == 1.0
    assert result["float32"]["here, tree 8/4/4"] == result["float32"]["here, plain"]
    assert "here, chain 3/2/1" in run.stdout and "vLLM, chain 3/2/1" in run.stdout


@pytest.mark.parametrize(
    "given, reason",
    [
        (["--llama-server", "s"], "--llama-server needs --target-gguf"),
        (["--head-gguf", "h"], "--head-gguf is for llama.cpp"),
    ],
)
def test_llama_cpp_needs_its_files(given, reason):
    run = CliRunner().invoke(command(engines.main), ["t", "h", "--data", "d", *given])
    assert run.exit_code == 1 and reason in run.stderr
