"""The known faults by name, each with a description and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fault:
    """One known cause of wrong numbers.

    Attributes:
        what: a clause that describes it, without a full stop.
        fix: what a user can do about it.
    """

    what: str
    fix: str


_TOKENIZER: Final = (
    "Serve the checkpoint's own tokenizer files, whose post-processor appends <|endoftext|> (151643); "
    "a GGUF file must be converted with them and with add_eos_token set"
)
_PROMPT: Final = (
    'Queries are "Instruct: {task}\\nQuery:{query}", documents the text alone; put that in exactly once, '
)
_TEMPLATE: Final = (
    "Have the template of the model card applied exactly, by one side alone. "
    "Servers' bundled templates are not exact: send token ids where the server takes them, or start vLLM with "
    "the --chat-template that `qwen3-rag serve MODEL` prints"
)
_POOLING: Final = "Set last-token pooling: vLLM --runner pooling --convert embed, TEI --pooling last-token"
_HEAD: Final = (
    'Score with the log-odds of the tokens "yes" (9693) and "no" (2152): for vLLM '
    "`qwen3-rag serve MODEL` prints the --hf-overrides that do it"
)
_LENGTH: Final = (
    "Raise the server's limit (vLLM --max-model-len, TEI --max-batch-tokens), or send no more than it takes: "
    "set max_tokens to it, so that this package cuts documents and nothing else"
)

FAULTS: Final[dict[str, Fault]] = {
    # Both kinds
    "not-finite": Fault(
        "it answers NaN or infinity", "Use bfloat16 or float32; float16 overflows in these models"
    ),
    "malformed": Fault("its answer cannot be read", "Check --server and the URL"),
    "refused": Fault(
        "it refuses the request", "Read what it says; `qwen3-rag serve MODEL` prints a right command"
    ),
    "out-of-order": Fault(
        "its answers are right but not in the order of the inputs",
        'Read the "index" of each result, or turn off sorting in the server or proxy',
    ),
    "batch-dependent": Fault(
        "a text's numbers change with what else is in the request",
        "Padding is attended to or pooled: pad on the left, hand on the attention mask, or use another server",
    ),
    "truncated": Fault("it cuts long inputs early", _LENGTH),
    "newlines-replaced": Fault(
        "newlines are replaced by spaces", "Turn that off in the client or proxy; the models read newlines"
    ),
    "white-space-stripped": Fault(
        "white space at the ends of texts is stripped",
        "Turn that off in the client or server. Sentence Transformers 5 does it, and servers built on it",
    ),
    "lower-cased": Fault("texts are lower-cased", "Turn off do_lower_case; these models are case-sensitive"),
    "chat-template": Fault(
        "it wraps each text in the chat template",
        "Serve the repository with its modules.json and 1_Pooling files, or a tokenizer without chat template",
    ),
    "unexplained": Fault(
        "the numbers differ and no known fault reproduces them",
        "Is it the same model and revision, and are its weights heavily quantised? Compare --model with it",
    ),
    # Embedding
    "missing-final-token": Fault("the final token <|endoftext|> is missing", _TOKENIZER),
    "doubled-final-token": Fault(
        "the final token <|endoftext|> is there twice",
        "The server appends one to ids that already end in it: send it text, or ids without",
    ),
    "wrong-final-token": Fault("texts end in <|im_end|> in place of <|endoftext|>", _TOKENIZER),
    "extra-first-token": Fault(
        "a token is put before the text", "Turn off the beginning-of-sequence token (add_bos_token)"
    ),
    "missing-instruction": Fault(
        "the instruction is missing",
        "Have it put in exactly once, by client or server: embedded queries start "
        '"Instruct: {task}\\nQuery:", rerank prompts have "<Instruct>: {task}" before the query',
    ),
    "instruction-ignored": Fault(
        "it uses the default instruction in place of the one that was sent",
        "Check the name that --instruction-field gives, and whether a gateway hands it on, as LiteLLM does for "
        "models that its configuration calls hosted_vllm/...",
    ),
    "doubled-instruction": Fault(
        "queries carry the instruction twice", _PROMPT + "so drop the server's default prompt"
    ),
    "instruction-on-documents": Fault(
        "documents carry the instruction of queries", _PROMPT + "so drop the server's default prompt"
    ),
    "instruction-spacing": Fault(
        "the query's prompt has a space too many or lost its newline", _PROMPT + "without a space after Query:"
    ),
    "mean-pooling": Fault("it pools by the mean of all tokens in place of the last token", _POOLING),
    "first-token-pooling": Fault("it takes the first token (CLS) in place of the last", _POOLING),
    "not-normalised": Fault(
        "vectors are not scaled to length 1",
        "Turn normalisation on (vLLM: a modules.json without Normalize turns it off; TEI: normalize), "
        "or scale them yourself before taking products",
    ),
    "wrong-dimensions": Fault(
        "vectors have another length than the model's",
        "Let the server send whole vectors and cut them afterwards, first cut and then normalise",
    ),
    # Reranking
    "template-missing": Fault("query and document come without the rerank template", _TEMPLATE),
    "template-doubled": Fault("the rerank template is applied twice", _TEMPLATE),
    "system-prompt-missing": Fault("the template's system turn is missing", _TEMPLATE),
    "suffix-cut": Fault("the template's end is missing, where the answer is read", _TEMPLATE),
    "think-block-lost": Fault("the empty think block at the template's end is missing", _TEMPLATE),
    "newline-lost": Fault(
        "a newline at the template's end is missing",
        _TEMPLATE + ". Jinja drops a newline that ends a template; write it as {{ '\\n\\n' }}",
    ),
    "blank-lines": Fault("there are blank lines between the template's fields", _TEMPLATE),
    "tags-lost": Fault("<Instruct>, <Query> and <Document> lost their angle brackets", _TEMPLATE),
    "turn-closed-twice": Fault("the template closes the user's turn twice", _TEMPLATE),
    "final-token-appended": Fault(
        "<|endoftext|> is appended to the rerank prompt", "Rerankers' tokenizers append nothing; use theirs"
    ),
    "swapped-inputs": Fault("query and document are swapped", "Swap the two fields of the request"),
    "answers-swapped": Fault('"yes" and "no" are swapped', _HEAD + ' (in the order "no", "yes")'),
    "log-odds": Fault(
        "it answers log-odds in place of probabilities",
        "Apply the sigmoid: turn on the server's activation (vLLM use_activation, TEI raw_scores=false)",
    ),
    "wrong-answer-tokens": Fault('it reads other tokens than "yes" and "no"', _HEAD),
    "one-answer-token": Fault('it reads the logit of "yes" alone', _HEAD),
    "sigmoid-twice": Fault(
        "it answers the sigmoid of probabilities in place of probabilities",
        "Apply the sigmoid once, in the server or in what stands before it",
    ),
    "constant": Fault(
        "it answers nearly the same for every pair",
        "It may have lost its head or its inputs: llama.cpp's converter keeps the head only where the folder's "
        "name or README tells of Qwen3-Reranker. " + _HEAD,
    ),
    "scaled": Fault("its log-odds are scaled or shifted", _HEAD),
    "cosine": Fault(
        "it answers the cosine of two vectors in place of scores",
        "It runs as an embedding model; " + _HEAD[0].lower() + _HEAD[1:],
    ),
}
