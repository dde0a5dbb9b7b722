"""LangGraph: an agent with a tool that retrieves and reranks.

pip install "qwen3-rag[langchain]" langgraph
python examples/agent_tool.py

A script plays the chat model. For a real agent: init_chat_model("...").bind_tools([search_handbook]).
"""

import argparse
import asyncio

from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_rag import SCORE_KEY, Qwen3Embeddings, Qwen3Reranker
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

HANDBOOK = [
    "Employees may work from home on up to three days a week.",
    "Travel is booked through the travel office; trains are preferred to flights.",
    "Expenses are paid back within ten days when a receipt is attached.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Qwen/Qwen3-Embedding-0.6B")
    parser.add_argument("--reranker", default="Qwen/Qwen3-Reranker-0.6B")
    arguments = parser.parse_args()

    store = InMemoryVectorStore.from_texts(HANDBOOK, Qwen3Embeddings(model=arguments.model))
    reranker = Qwen3Reranker(model=arguments.reranker, top_n=2)

    @tool
    async def search_handbook(question: str) -> str:
        """Search the company's handbook. Returns the most relevant rules with scores from 0 to 1."""
        found = await store.asimilarity_search(question)
        best = await reranker.acompress_documents(found, question)
        return "\n".join(f"{d.metadata[SCORE_KEY]:.3f}  {d.page_content}" for d in best)

    call = {"name": "search_handbook", "args": {"question": "How soon do I get my money back?"}, "id": "1"}
    script = [AIMessage("", tool_calls=[call]), AIMessage("Within ten days, if you attach the receipt.")]
    model = FakeMessagesListChatModel(responses=script)

    async def think(state: MessagesState) -> dict:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("think", think).add_node("tools", ToolNode([search_handbook]))
    graph.add_edge(START, "think").add_edge("tools", "think")
    graph.add_conditional_edges("think", tools_condition)  # to the tools, or to the end
    asked = {"messages": [("user", "When are my expenses paid back?")]}
    for message in asyncio.run(graph.compile().ainvoke(asked))["messages"]:
        message.pretty_print()


if __name__ == "__main__":
    main()
