"""Small tokenizers of the kinds that language models have."""

from functools import cache

from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from tests.small_language_model import trained_byte_level

WORDS = "When Mary and John went to the store , gave a drink Ann Jim school book café . Alexandra"
BOS = "<s>"


@cache
def byte_level(adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE as in GPT-2, whose tokens are the words above; "Zebra" is several. The start token is `<s>`."""
    corpus = [form for word in WORDS.split() for form in (f"{word} {word}", f"{word}s")] * 4
    return _fast(trained_byte_level(corpus, 700, [BOS, "</s>"]), adds_bos)


@cache
def sentence_piece(adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """Unigram pieces as SentencePiece writes them: "▁" before each word, one added before the text."""
    words = [f"▁{word}" for word in WORDS.split()] + ["▁", *"abcdefghijklmnopqrstuvwxyzZ", *WORDS.split()]
    pieces = [
        (BOS, 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((piece, -float(3 + k / 100)) for k, piece in enumerate(words)),
    ]
    tokens = Tokenizer(Unigram([*dict(pieces).items()], unk_id=2))
    tokens.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokens.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return _fast(tokens, adds_bos, unk_token="<unk>")


def _fast(tokens: Tokenizer, adds_bos: bool, **special: str) -> PreTrainedTokenizerFast:
    if adds_bos:
        tokens.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, tokens.token_to_id(BOS))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token=BOS, eos_token="</s>", clean_up_tokenization_spaces=False, **special
    )
