"""The words of a plan in English and Chinese. Findings are sentences with arithmetic, and stay English."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Language = Literal["en", "zh"]
Say = Callable[[str], str]

CHINESE = {
    # headings
    "Model": "模型",
    "Run": "训练",
    "What the laws say": "缩放定律的预期",
    "Time and money": "时间与费用",
    "Layouts": "并行布局",
    "Why the others lose": "其余布局为何落选",
    "Consistency": "一致性检查",
    "Memory of a rank": "单个进程的显存",
    "Where a step's time goes": "一步的时间花在哪里",
    "Loss and tokens": "损失与词元数",
    "Assumptions": "假设",
    # facts
    "parameters": "参数量",
    "FLOPs a token": "每词元 FLOPs",
    "shape": "结构",
    "length": "长度",
    "compute": "算力",
    "data": "数据",
    "loss": "损失",
    "compute-optimal": "算力最优",
    "this recipe": "本配方",
    "learning rate": "学习率",
    "batch": "批次",
    "step": "一步",
    "speed": "速度",
    "time": "时间",
    "device-hours": "设备小时",
    "money": "费用",
    "energy": "电能",
    "embedding": "嵌入",
    "blocks": "各层",
    "head": "输出头",
    "norms and biases": "归一化与偏置",
    "{blocks} blocks, {hidden} wide, {heads} heads of {head_dim}, {groups} for keys and values": (
        "{blocks} 层，宽 {hidden}，{heads} 个头，每头 {head_dim}，键值头 {groups} 个"
    ),
    "{tokens} tokens = {steps} steps × {batch} sequences × {length}": (
        "{tokens} 词元 = {steps} 步 × {batch} 条序列 × {length}"
    ),
    "{flops} model FLOPs": "{flops} 模型 FLOPs",
    "no token datasets here yet": "此处还没有词元数据集",
    "{name} {tokens} tokens, {epochs} times": "{name} {tokens} 词元，读 {epochs} 遍",
    "{low} to {high} nats a token ({laws})": "每词元 {low} 至 {high} 奈特（{laws}）",
    "these tokens teach as much as {tokens} new ones": "这些词元相当于 {tokens} 新词元",
    "the laws have nothing to say of so short a run": "这些定律不适用于如此短的训练",
    "smaller than the models that the laws were fitted on": "比拟合定律所用的模型还小",
    "{low_n} to {high_n} parameters on {low_d} to {high_d} tokens": (
        "{low_n} 至 {high_n} 参数，{low_d} 至 {high_d} 词元"
    ),
    "{ratio} tokens a parameter; loss {penalty} above the best for this compute, {wasted} of it spared by the best": (
        "每参数 {ratio} 词元；损失比同算力最优高 {penalty}，最优模型可省 {wasted} 的算力"
    ),
    "{rate} here; {laws}": "此处 {rate}；{laws}",
    "{tokens} tokens here; {laws}; critical about {critical}": "此处 {tokens} 词元；{laws}；临界约 {critical}",
    "the laws are of models that predict the next token": "这些定律只适用于预测下一个词元的模型",
    "{low} to {high} s, typically {typical}": "{low} 至 {high} 秒，通常 {typical}",
    "{all} tokens/s, {one} each; MFU {mfu}, HFU {hfu}": "每秒 {all} 词元，每设备 {one}；MFU {mfu}，HFU {hfu}",
    "{low} to {high} hours, typically {typical}": "{low} 至 {high} 小时，通常 {typical}",
    "{low} to {high} days, typically {typical}": "{low} 至 {high} 天，通常 {typical}",
    "{low} to {high}, typically {typical}": "{low} 至 {high}，通常 {typical}",
    "{low} to {high} $, typically {typical} (at {low_price} to {high_price} $ an hour, {date})": (
        "{low} 至 {high} 美元，通常 {typical}（每小时 {low_price} 至 {high_price} 美元，{date}）"
    ),
    "{low} to {high} kWh, typically {typical}": "{low} 至 {high} 千瓦时，通常 {typical}",
    "no price of this device is known": "此设备的价格未知",
    "no time is known for this precision on this device": "此设备上该精度的速度未知",
    # layouts
    "layout": "布局",
    "micro-batch": "微批次",
    "recompute": "重计算",
    "GB": "GB",
    "seconds": "秒",
    "tokens/s each": "词元/秒/设备",
    "MFU": "MFU",
    "settings": "设置",
    "recipe": "配方",
    "the recipe's own": "配方自己的布局",
    "as the recipe": "与配方相同",
    "{tried} tried, {fit} fit": "试了 {tried} 种，{fit} 种放得下",
    "none of {tried} fits": "试了 {tried} 种，都放不下",
    "does not fit": "放不下",
    "one process": "单进程",
    # why others lose
    "do not come out: {reason}": "除不尽：{reason}",
    "refused": "训练拒绝",
    "do not fit; the nearest lacks {lacks} GB": "放不下；最接近的还差 {lacks} GB",
    "slower, most by {part}; the nearest takes {times} of the best": (
        "较慢，主要因{part}；最接近的用时为最优的 {times}"
    ),
    # parts
    "weights, fp32": "权重（fp32）",
    "gradients, fp32": "梯度（fp32）",
    "AdamW's moments, fp32": "AdamW 的矩（fp32）",
    "weights to multiply with": "参与乘法的权重",
    "FSDP's buffers": "FSDP 缓冲区",
    "activations": "激活",
    "backward pass of a block": "一层的反向传播",
    "head and loss": "输出头与损失",
    "device context and margin": "设备上下文与余量",
    "matrix products": "矩阵乘法",
    "attention": "注意力",
    "memory traffic": "显存读写",
    "starting kernels": "启动内核",
    "optimizer": "优化器",
    "tensor parallel": "张量并行通信",
    "context parallel": "上下文并行通信",
    "pipeline sends": "流水线传送",
    "FSDP": "FSDP 通信",
    "communication": "通信",
    "bubble": "流水线气泡",
    "waiting for the slowest": "等待最慢者",
    # consistency
    "problem": "错误",
    "warning": "警告",
    "note": "提示",
    "Nothing found.": "没有发现问题。",
    "Looked at": "检查过",
    "Not looked at": "未检查",
    "helps": "办法",
    "seen": "所见",
    "rank {rank}": "第 {rank} 级",
    "tokens": "词元",
    "this run": "本次训练",
    "device memory": "设备显存",
    "tensor, context": "张量、上下文",
    "layers": "层数",
    "micro-batches": "微批次数",
    # page
    "on {devices} × {device}": "用 {devices} × {device}",
    "in {nodes} machines of {each}": "{nodes} 台机器，每台 {each} 个",
    "Predictions are ranges: two of three runs like the published ones lie within.": (
        "预测值为范围：与已发表的训练相似者，三次中有两次落在其中。"
    ),
    "Findings are in English.": "检查结果为英文。",
}
"""By the English words."""


def words(language: Language) -> Say:
    """A function from English words to those of a language."""
    return (lambda text: text) if language == "en" else CHINESE.__getitem__


MEMORY_PARTS = {
    "parameters": "weights, fp32",
    "optimizer": "AdamW's moments, fp32",
    "compute_weights": "weights to multiply with",
    "activations": "activations",
    "gradients": "gradients, fp32",
    "buffers": "FSDP's buffers",
    "backward": "backward pass of a block",
    "head": "head and loss",
    "rest": "device context and margin",
}
"""What a rank holds at its peak, by `at_peak`."""
STEP_PARTS = {
    "matmul": "matrix products",
    "attention": "attention",
    "memory": "memory traffic",
    "launch": "starting kernels",
    "optimizer": "optimizer",
    "tensor": "tensor parallel",
    "context": "context parallel",
    "pipeline": "pipeline sends",
    "data": "FSDP",
    "bubble": "bubble",
    "straggler": "waiting for the slowest",
}
"""By the names of `StepTime.parts`."""
