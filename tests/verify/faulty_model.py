"""What a server computes over a real small checkpoint, with a switch for faults.

It computes with Hugging Face's own modules and the model cards' strings, sharing nothing with the package: one
text at a time, without padding, unless padding is the fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from oracle import RERANK_PREFIX, RERANK_SUFFIX, TASK
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

END = 151643
TURN_END = 151645
QUERY_PROMPT = f"Instruct: {TASK}\nQuery:"
YES, NO = 9693, 2152
T = TypeVar("T")


class Model:
    """A checkpoint's final states and logits."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = _tokenizer(folder / "tokenizer.json")
        self.network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").to(dtype).eval()

    def ids(self, *parts: str) -> list[int]:
        return [i for part in parts for i in self.tokenizer.encode(part, add_special_tokens=False).ids]

    @torch.inference_mode()
    def states(self, ids: list[int]) -> torch.Tensor:
        return self.network.model(input_ids=torch.tensor([ids])).last_hidden_state[0].float()

    @torch.inference_mode()
    def logits(self, state: torch.Tensor, *tokens: int) -> list[float]:
        return (self.network.lm_head.weight[list(tokens)].float() @ state).tolist()


@cache
def _tokenizer(path: Path) -> Tokenizer:
    """Read once for all models of a folder: it takes most of a second."""
    return Tokenizer.from_file(str(path))


class Served:
    """What the server computes.

    Attributes:
        fault: name of the planted fault, or of two joined by "+"; "" for none.
        key: what requests must be authorised with, if anything.
        listed: names of the models that it says it has.
        failures: statuses of its next answers to POST, which then are no answers.
        retry_after: when it wants to be asked again then, if it says so.
        broken: paths at which it answers with a status alone, or, if that is 0, ends the connection.
        form: makes of a vector or score, and the number of them in the answer, what is written in its place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = Model(folder)
        self.fault = ""
        self.key: str | None = None
        self.listed = ["the-model"]
        self.failures: list[int] = []
        self.retry_after: str | None = "0.01"
        self.broken: dict[str, int] = {}
        self.form: Callable[[Any, int], Any] = lambda value, _: value

    @cached_property
    def rough(self) -> Model:
        """The same in less precision."""
        return Model(self.folder, torch.bfloat16)

    @cached_property
    def other(self) -> Model:
        """Another model of the same shape: the layers stand in reverse."""
        model = Model(self.folder)
        model.network.model.layers = torch.nn.ModuleList(reversed(model.network.model.layers))
        return model

    def _faulty(self) -> Model:
        """The model that the fault chooses."""
        if self.fault == "bfloat16":
            return self.rough
        return self.other if self.fault == "another model" else self.model

    def _chosen(self, faulty: dict[str, T], right: T) -> T:
        """What a planted fault gives in place of what is right."""
        return next((faulty[name] for name in self.fault.split("+") if name in faulty), right)

    def embed(self, inputs: list[Any], dimensions: int | None) -> list[list[float]]:
        vectors = [self._vector(self._embedding_ids(one)) for one in inputs]
        if self.fault == "batch-dependent" and len(inputs) > 1:  # padding on the left, attended to
            rows = [self._embedding_ids(one) for one in inputs]
            vectors = [self._vector([END] * (max(map(len, rows)) - len(row)) + row) for row in rows]
        length = 48 if self.fault == "wrong-dimensions" else dimensions
        vectors = [vector[:length] for vector in vectors]
        if self.fault == "out-of-order":
            vectors = vectors[::-1]
        if self.fault == "not-finite":
            vectors[-1] = vectors[-1] * math.nan
        if self.fault != "not-normalised":
            vectors = [vector / vector.norm() for vector in vectors]
        return [vector.tolist() for vector in vectors]

    def _embedding_ids(self, one: str | list[int]) -> list[int]:
        ids = self.model.ids(self.rendered(one)) if isinstance(one, str) else one[:-1]
        if self.fault == "truncated":
            ids = ids[:255]
        if self.fault.startswith("truncated at "):
            ids = ids[: int(self.fault.split()[-1]) - 1]
        closings = {
            "missing-final-token": ids,
            "doubled-final-token": [*ids, END, END],
            "wrong-final-token": [*ids, TURN_END],
            "extra-first-token": [END, *ids, END],
            "truncated without final token": [*ids, END][:256],
        }
        return self._chosen(closings, [*ids, END])

    def rendered(self, text: str) -> str:
        """What is embedded of a text."""
        is_query = text.startswith(QUERY_PROMPT)
        plain = text.removeprefix(QUERY_PROMPT)
        changed = {
            "missing-instruction": plain,
            "doubled-instruction": QUERY_PROMPT + text if is_query else text,
            "default-prompt": QUERY_PROMPT + text,
            "instruction-on-documents": QUERY_PROMPT + plain,
            "instruction-spacing": text.replace("Query:", "Query: "),
            "newlines-replaced": text.replace("\n", " "),
            "white-space-stripped": text.strip(),
            "lower-cased": text.lower(),
            "chat-template": f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
        }
        return self._chosen(changed, text)

    def _vector(self, ids: list[int]) -> torch.Tensor:
        states = self._faulty().states(ids)
        return self._chosen({"mean-pooling": states.mean(dim=0), "first-token-pooling": states[0]}, states[-1])

    def classify(self, rows: list[list[int]]) -> list[float]:
        return [self._score(row) for row in rows]

    def rerank(self, query: str, documents: list[str]) -> list[float]:
        if self.fault.startswith("cosine"):
            return [self._cosine(*self.embedded_pair(query, document)) for document in documents]
        rows = [self.model.ids(*self.parts(query, document)) for document in documents]
        if self.fault == "batch-dependent":  # padding on the left, attended to
            rows = [[END] * (max(map(len, rows)) - len(row)) + row for row in rows]
        scores = [self._score(row) for row in rows]
        return scores[::-1] if self.fault == "out-of-order" else scores

    def embedded_pair(self, query: str, document: str) -> tuple[str, str]:
        """What is embedded if the answers are cosines."""
        return query + "<|endoftext|>", document + "<|endoftext|>"

    def _cosine(self, *texts: str) -> float:
        model = self.other if self.fault == "cosine of another model" else self.model
        query, document = (model.states(model.ids(text))[-1] for text in texts)
        return torch.cosine_similarity(query, document, dim=0).item()

    def parts(self, query: str, document: str) -> tuple[str, ...]:
        """Parts of a rerank prompt, which are tokenised separately."""
        prefix, suffix = RERANK_PREFIX, RERANK_SUFFIX
        body = f"<Instruct>: {TASK}\n<Query>: {query}\n<Document>: {document}"
        whole = prefix + body + suffix
        changed: dict[str, tuple[str, ...]] = {
            "template-missing": (query, document),
            "rendered by the client": (query, document),
            "template-doubled": (prefix, f"<Instruct>: {TASK}\n<Query>: {query}\n<Document>: {whole}", suffix),
            "system-prompt-missing": ("<|im_start|>user\n", body, suffix),
            "suffix-cut": (prefix, body),
            "think-block-lost": (prefix, body, "<|im_end|>\n<|im_start|>assistant\n"),
            "newline-lost": (prefix, body, suffix[:-1]),
            "blank-lines": (
                prefix,
                body.replace("\n<Query>", "\n\n<Query>").replace("\n<Doc", "\n\n<Doc"),
                suffix,
            ),
            "tags-lost": (prefix, f"Instruct: {TASK}\nQuery: {query}\nDocument: {document}", suffix),
            "turn-closed-twice": (prefix, body, "<|im_end|>\n" + suffix),
            "missing-instruction": (prefix, f"<Query>: {query}\n<Document>: {document}", suffix),
            "doubled-instruction": (prefix, body.replace(query, QUERY_PROMPT + query, 1), suffix),
            "final-token-appended": (prefix, body, suffix + "<|endoftext|>"),
            "swapped-inputs": (
                prefix,
                f"<Instruct>: {TASK}\n<Query>: {document}\n<Document>: {query}",
                suffix,
            ),
        }
        return self._chosen(changed, (prefix, body, suffix))

    def _score(self, ids: list[int]) -> float:
        if self.fault == "truncated":
            ids = ids[:256]
        if self.fault.startswith("truncated at "):  # the document's end, not the template's
            limit, suffix = int(self.fault.split()[-1]), self.model.ids(RERANK_SUFFIX)
            ids = ids if len(ids) <= limit else [*ids[: limit - len(suffix)], *suffix]
        model = self._faulty()
        state = model.states(ids)[-1]
        yes, no, capital_yes, capital_no = model.logits(state, YES, NO, *model.ids("Yes"), *model.ids("No"))
        answers = {
            "answers-swapped": no - yes,
            "wrong-answer-tokens": capital_yes - capital_no,
            "one-answer-token": yes,
            "scaled": 0.4 * (yes - no),
            "not-finite": math.nan,
            "sigmoid-twice": 1 / (1 + math.exp(no - yes)),
        }
        log_odds = self._chosen(answers, yes - no)
        return log_odds if "log-odds" in self.fault else 1 / (1 + math.exp(-log_odds))
