"""ChatGPT's page back to Markdown: expected texts written by hand from what the page shows."""

import pytest

from data_prep.sharegpt.html_markdown import UnparsableHtmlError, html_to_markdown, is_html_answer

WRAPPER = '<div class="markdown prose w-full break-words dark:prose-invert light">{}</div>'


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        ("<p>One</p><p>Two<br>lines</p>", "One\n\nTwo  \nlines"),
        ("<p><strong>a_b</strong> and <em>c</em>, 2*3 &lt; 4 &amp; x_y</p>", "**a_b** and *c*, 2*3 < 4 & x_y"),
        ("<p>run <code>get_items</code></p>", "run `get_items`"),
        ("<ol><li><p>One</p></li><li>Two<ul><li>deep</li></ul></li></ol>", "1. One\n2. Two\n   - deep"),
        ("<h3>Head</h3><p>x</p>", "### Head\n\nx"),
        ('<p><a href="http://a.b/c_d">link</a></p>', "[link](http://a.b/c_d)"),
        (
            "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>",
            "| a | b |\n| --- | --- |\n| 1 | 2 |",
        ),
        (
            '<pre><div class="bg-black"><div><span>python</span><button><svg></svg>Copy code</button></div><div>'
            '<code class="!whitespace-pre hljs language-python"><span class="k">def</span> f(a_b):\n'
            "    return a_b &lt; 3\n\n\n\n# *end*\n</code></div></div></pre>",
            "```python\ndef f(a_b):\n    return a_b < 3\n\n\n\n# *end*\n```",
        ),
        ("<pre><div>bashCopy code<code>ls -l\n</code></div></pre>", "```bash\nls -l\n```"),
        ("<pre><code>plain\n  indented</code></pre>", "```\nplain\n  indented\n```"),
        ("<pre>sqlCopy codeselect 1</pre>", "```sql\nselect 1\n```"),
        (
            '<p>so <span class="math"><span class="katex"><span class="katex-mathml"><math><mi>x</mi><annotation '
            'encoding="application/x-tex">x^2_i</annotation></math></span><span aria-hidden="true">x2i</span></span>'
            "</span>.</p>",
            "so $x^2_i$.",
        ),
        ("<p>a</p>\n\n\n\n<p>b</p>", "a\n\nb"),
        (  # blank lines of code stay in a list too
            "<ul><li>Do<pre><code>a\n\n\n\nb\n</code></pre></li></ul>",
            "- Do\n\n  ```\n  a\n\n\n\n  b\n  ```",
        ),
        (  # code that holds a fence
            '<pre><code class="language-markdown"># T\n```py\nx\n```\n</code></pre><p>b</p>',
            "````markdown\n# T\n```py\nx\n```\n````\n\nb",
        ),
        (
            "<table><tr><th>a|b</th></tr><tr><td><code>x|y</code></td></tr></table><p>c|d</p>",
            "| a\\|b |\n| --- |\n| `x\\|y` |\n\nc|d",
        ),
    ],
)
def test_page_to_markdown(html: str, markdown: str) -> None:
    assert html_to_markdown(WRAPPER.format(html)) == markdown


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (WRAPPER.format("<p>x</p>"), True),
        ("<p>x</p>\n<ul><li>y</li></ul>", True),
        ("<pre><code>x</code></pre>", True),
        ("Use <p>x</p>", False),
        ("```html\n<p>x</p>\n```", False),
        ('<div class="modal fade" id="m">code of a page</div>', False),
        ("<p>Unclosed", False),
        ("<?php echo 1;", False),
        ("<https://example.org>", False),
        ("", False),
    ],
)
def test_only_the_page_is_html(text: str, html: bool) -> None:
    assert is_html_answer(text) is html


def test_hostile_html() -> None:
    with pytest.raises(UnparsableHtmlError):
        html_to_markdown("<div>" * 20_000)
    assert html_to_markdown("<p>a</q></p><p>b<![CDATA[x") is not None
    assert html_to_markdown("<p>a<script>alert(1)</script><style>p{}</style>b</p>") == "ab"
