"""What tests of the command line share: a tiny target and a head saved as users have them, and a call of a command."""

from pathlib import Path
from types import SimpleNamespace

from models import EOS, PAD, VOCAB, random_head, tiny_target
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from eagle_decoding.checkpoint import write_head
from eagle_decoding.cli import app

CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }} w4 {% endfor %}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Token i is the word 'w' + i."""
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w3"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=f"w{EOS}", pad_token=f"w{PAD}", chat_template=CHAT_TEMPLATE
    )


def save_models(folder: Path) -> tuple[str, ...]:
    """--target and --draft for a tiny model and a head."""
    target = tiny_target()
    target.save_pretrained(folder / "target")
    make_tokenizer().save_pretrained(folder / "target")
    head = random_head(target, draft_vocab=60)
    write_head(folder / "head", head.config, head.tensors)
    return "--target", str(folder / "target"), "--draft", str(folder / "head"), "--dtype", "float32"


def run(*arguments: str, stdin: str | None = None) -> SimpleNamespace:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)
