"""Chinese sentences: menus go, prose and poems stay, and what is left is part of what was there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.config.text_steps import ChineseSentences
from firstlight.corpus.step import Block
from firstlight.corpus.text_steps import STEPS

PROSE = "语言模型从大量文本里学习如何预测下一个词语。文本的质量决定了模型最后能够达到的水平！你认为这样说对不对？"
MENU = "首页\n关于我们的网站和服务\n联系方式"
POEM = "靜夜思\n李白\n床前明月光，疑是地上霜。\n舉頭望明月，低頭思故鄉。"
SONG = (
    "水调歌头\n韩元吉\n泽国又秋晚，天际有飞鸿。\n中原何在，极目千里暮云重。\n今古长干桥下，遗恨都随流水，西去几时东。"
)


def judge(text, **options):
    result = STEPS[ChineseSentences](ChineseSentences(**options)).apply(Block([text], [{}]))
    return result.reasons[0], result.texts[0], dict(result.counts)


def test_lines_that_are_no_sentences_go():
    assert judge(f"{MENU}\n{PROSE}\n版权所有") == (None, PROSE, {"lines removed": 4})
    assert judge(f"{PROSE}\n\n{PROSE}") == (None, f"{PROSE}\n\n{PROSE}", {})


@pytest.mark.parametrize(
    "line",
    [
        "他说：“这样的话我们就去吧。”",
        '他说："这样的话我们就去吧。"',
        "这是最后的一句话……",
        "（参见上一章的内容。）",
        "  这是缩进的一行文字；  ",
        "句号是半角的一行文字.",
        "这一行的后面有注释的号码。[2]",
        "这一行的后面有两个号码。[3] [5-7]",
    ],
)
def test_lines_may_end_in_quotation_marks_brackets_and_citations(line):
    assert line in judge(f"{line}\n{PROSE}")[1]


@pytest.mark.parametrize(
    "line", ["据报道这项工程将在明年年底以前全部完成...", "本网站的全部内容[2]", "相关的新闻与评论："]
)
def test_lines_that_end_otherwise_go(line):
    assert judge(f"{line}\n{PROSE}")[1] == PROSE


WRAPPED = (
    "语言模型从大量文本里学习如何预测下一个词语，文本的质量决定了\n"
    "模型最后能够达到的水平，因此在训练以前要仔细地挑选文本，去掉\n"
    "不好的部分。这样训练出来的模型才好用。你同意吗？"
)


def test_sentences_that_go_on_in_the_next_line_stay_whole():
    assert judge(WRAPPED) == (None, WRAPPED, {})
    assert judge(f"{MENU}\n{WRAPPED}\n{MENU}")[1] == WRAPPED
    short_end = WRAPPED.replace("不好的部分。这样训练出来的模型才好用。你同意吗？", "旧的。\n\n") + PROSE
    assert judge(short_end)[1] == short_end
    assert judge(WRAPPED, min_wrapped_han=None, min_sentences=1)[1] == WRAPPED.split("\n")[-1]


@pytest.mark.parametrize(
    "below", ["\n", "版权所有\n", "北京发布暴雨蓝色预警信号 预计今天夜间到明天白天有大雨\n", "abc\n"]
)
def test_long_lines_go_where_no_sentence_goes_on_below(below):
    line = "市中心的新图书馆下月开放，读者可以免费办理借书证件"
    assert line not in judge(f"{line}\n{below}{PROSE}")[1]
    assert line in judge(f"{line}\n{PROSE}")[1]


def test_half_width_full_stops_end_sentences_but_decimal_points_do_not():
    assert judge("系统安装完成以前不要连接网络. 服务会马上启动. 请先更新.")[0] is None
    assert judge("圆周率大约是3.14159，自然对数的底大约是2.71828，黄金比是0.618。")[0] == "few sentences"


def test_a_long_text_without_any_mark_is_judged_at_once():
    assert judge("汉" * 300_000 + "\n", terminal_marks="", keep_verse=False)[0] == "few sentences"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("This manual has hardly any Chinese: 中文说明在下一页。", "few Han characters"),
        (MENU, "few Han characters left"),
        (f"{MENU}\n我们只说这一句就结束了的话。", "few sentences"),
        ("", "few Han characters left"),
        (PROSE, None),
        (POEM * 2, None),
        (SONG, None),
    ],
)
def test_reasons(text, reason):
    assert judge(text)[0] == reason


@pytest.mark.parametrize("poem", [f"{POEM}\n{POEM}", SONG])
def test_poems_lose_no_line_unless_asked(poem):
    assert judge(poem)[1:] == (poem, {"verse": 1})
    reason, text, counts = judge(poem, keep_verse=False)
    assert (reason, counts) == (None, {"lines removed": 2 * poem.count("靜夜思") or 2})
    assert "李白" not in text
    assert "韩元吉" not in text


def test_prose_with_titles_is_no_verse():
    assert "verse" not in judge("\n".join(["第一章", PROSE, "第二章", PROSE]))[2]


lines = st.lists(
    st.sampled_from([*MENU.split("\n"), PROSE, *POEM.split("\n"), *WRAPPED.split("\n"), "abc", "", "　"]), max_size=8
)


@given(lines.map("\n".join), st.booleans(), st.integers(0, 12))
def test_kept_lines_are_a_part_of_the_document_in_order(text, keep_verse, least):
    reason, new, counts = judge(text, keep_verse=keep_verse, min_line_han=least)
    before = iter(text.split("\n"))
    assert all(line in before for line in new.split("\n")) or not new
    if reason:
        assert new == text
    elif "verse" not in counts:
        assert judge(new, keep_verse=False, min_line_han=least, min_han_share=0)[:2] == (None, new)


def test_every_rule_can_be_left_out():
    free = {"terminal_marks": "", "min_line_han": 0, "min_han": 0, "min_han_share": 0, "min_sentences": 0}
    for text in ("", MENU, "no Chinese at all", POEM):
        assert judge(text, **free)[:2] == (None, text)
