"""LangChain's wrapper and tool for pictures, unmodified: what they ask for is an address, which they hand on."""

import urllib.request

import pytest

dalle = pytest.importorskip("langchain_community.utilities.dalle_image_generator")


def test_the_wrapper_gets_the_address_of_a_picture(server):
    wrapper = dalle.DallEAPIWrapper(
        model="z-image-turbo", size="64x64", base_url=f"{server.url}/v1", api_key="any"
    )
    with urllib.request.urlopen(wrapper.run("a red house, the sun")) as answer:
        assert answer.headers["content-type"] == "image/png"


def test_a_program_that_does_not_change_gets_one_too(server, monkeypatch):
    from langchain_community.tools.openai_dalle_image_generation import OpenAIDALLEImageGenerationTool

    monkeypatch.setenv("OPENAI_API_BASE", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    # It asks for `dall-e-2` and 1024 pixels a side unless it is told, which the embedded model would take minutes for.
    tool = OpenAIDALLEImageGenerationTool(api_wrapper=dalle.DallEAPIWrapper(size="256x256"))
    with urllib.request.urlopen(tool.invoke("a red house")) as answer:
        assert answer.read(8)[1:4] == b"PNG"
