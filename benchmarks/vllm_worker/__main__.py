"""One vLLM engine in its own process and environment. Imports nothing of this project.

    python benchmarks/vllm_worker '{"kind": "embedding", "arguments": {...of vllm.LLM...}}'

`peers/vllm.py` starts it, with the interpreter of that environment. The folder holds nothing else because
it comes first in the module path, where a `vllm.py` would be taken for vLLM.

Says {"started": seconds, ...} when the engine is up. Then each line of standard input names a file of token
ids and a file for the values; the answer has the seconds that the engine took. Prefix caching is left as the
engine has it, but the cache is emptied before each line that asks for it: a second run of the same
texts would otherwise find them all computed.
"""

import json
import os
import sys
import time


def main() -> None:
    # The engine logs to standard output, which is the answers' channel: give it standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given = json.loads(sys.argv[1])
    started = time.perf_counter()
    import numpy as np
    import vllm
    from vllm import LLM, PoolingParams, TokensPrompt

    embeds = given["kind"] == "embedding"
    llm = LLM(**given["arguments"])
    config = llm.llm_engine.vllm_config

    def say(answer: "dict[str, object]") -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say(
        {
            "started": time.perf_counter() - started,
            "vllm": vllm.__version__,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "block_size": config.cache_config.block_size,
            "enforce_eager": bool(config.model_config.enforce_eager),
        }
    )
    for line in sys.stdin:
        asked = json.loads(line)
        with open(asked["ids"]) as file:
            prompts = [TokensPrompt(prompt_token_ids=ids) for ids in json.load(file)]
        if asked["empty_cache"]:
            assert llm.reset_prefix_cache(), "the prefix cache is in use"
        begun = time.perf_counter()
        if embeds:
            outputs = llm.embed(prompts, use_tqdm=False, pooling_params=PoolingParams(use_activation=True))
        else:
            outputs = llm.classify(prompts, use_tqdm=False)
        seconds = time.perf_counter() - begun
        values = [out.outputs.embedding if embeds else out.outputs.probs[0] for out in outputs]
        np.save(asked["values"], np.asarray(values, np.float32))
        say({"seconds": seconds, "cached": sum(max(0, out.num_cached_tokens or 0) for out in outputs)})


if __name__ == "__main__":
    main()
