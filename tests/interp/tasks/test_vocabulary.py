"""Every symbol has one token of the default tokenizer, and a vocabulary refuses mistakes."""

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from interp.tasks import Vocabulary, default_tokenizer, default_vocabulary, parse_format, sample
from tests.interp.tasks import oracle
from tests.interp.tasks.test_formats import FORMATS, SHORT

DEFAULT = default_vocabulary()


@pytest.mark.parametrize(("name", "length"), SHORT)
def test_the_default_tokenizer_and_the_prompt_agree_both_ways(name, length):
    tokenizer, batch = default_tokenizer(), sample(name, 4, length, seed=0)
    for row in range(len(batch)):
        assert tokenizer.encode(batch.text(row)) == batch.tokens[row].tolist()
        assert tokenizer.decode(batch.tokens[row]) == batch.text(row)


def test_every_symbol_of_the_default_survives_its_tokenizer():
    tokenizer = default_tokenizer()
    assert tokenizer.get_vocab() == DEFAULT.ids
    assert len(tokenizer) == len(DEFAULT.ids)
    for symbol, token in DEFAULT.ids.items():
        assert tokenizer.encode(symbol) == [token]
        assert tokenizer.decode([token]) == DEFAULT.symbol(token) == symbol


def test_unknown_words_and_special_tokens_of_the_default():
    tokenizer = default_tokenizer()
    assert tokenizer.encode("Mxyz") == [tokenizer.unk_token_id]
    special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert special == (0, 1, 2, 3)


def test_the_default_tokenizer_survives_saving(tmp_path):
    before, batch = default_tokenizer(), sample("addition-zeropad", 1, (5, 2), seed=0)
    before.save_pretrained(tmp_path)
    for after in (PreTrainedTokenizerFast.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert after.get_vocab() == before.get_vocab()
        assert after.special_tokens_map == before.special_tokens_map
        assert after.encode(batch.text()) == batch.tokens[0].tolist()
        assert after.decode(batch.tokens[0]) == batch.text()


def test_the_default_has_enough_labels_and_holds_some_out():
    assert len(set(DEFAULT.ids.values())) == len(DEFAULT.ids)
    assert sorted(DEFAULT.ids.values()) == list(range(len(DEFAULT.ids)))
    assert len(DEFAULT.labels) >= 2 * 60
    assert len(DEFAULT.held_out) >= 60
    assert not set(DEFAULT.labels) & set(DEFAULT.held_out)
    assert DEFAULT.pool.tolist() == [DEFAULT.ids[x] for x in DEFAULT.labels]
    assert DEFAULT.held_out_pool.tolist() == [DEFAULT.ids[x] for x in DEFAULT.held_out]
    assert {*DEFAULT.labels} == {f"M{i}" for i in oracle.POOL}
    assert {*DEFAULT.held_out} == {f"M{i}" for i in oracle.HELD_OUT}


@pytest.mark.parametrize("name", FORMATS)
def test_the_default_has_every_symbol_of_every_format(name):
    fmt = parse_format(name)
    for symbol in (*fmt.structure, *fmt.inputs, *fmt.outputs, *fmt.fixed_labels(60)):
        assert DEFAULT[symbol] == DEFAULT.ids[symbol]


def test_mistakes_in_a_vocabulary_are_refused():
    with pytest.raises(ValueError, match="symbols '0' and '1' share token id 4"):
        Vocabulary({"0": 4, "1": 4}, ())
    with pytest.raises(ValueError, match="labels without a token: M1, M2"):
        Vocabulary({"0": 4}, ("M1",), ("M2",))
    with pytest.raises(ValueError, match="no symbol 'zzz'"):
        DEFAULT["zzz"]
    with pytest.raises(ValueError, match="no symbol 'zzz'"):
        DEFAULT.tokens(["0", "zzz"])
    for bad in (-1, "3", 2.0, None):
        with pytest.raises(ValueError, match="must be integers from 0"):
            Vocabulary.from_json({"ids": {"0": bad}, "labels": [], "held_out": []})


def test_symbols_and_tokens_are_inverse():
    assert DEFAULT.tokens(["M3", "0", "M3"]).tolist() == [DEFAULT.ids["M3"], DEFAULT.ids["0"], DEFAULT.ids["M3"]]
    assert DEFAULT.tokens([]).dtype == torch.long
    assert DEFAULT.symbol(10**6) == "<1000000>"
