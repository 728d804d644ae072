"""What the ONNX schema cannot say about its operators: a class for each, the same for all versions of an operator."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class OpKind(enum.Enum):
    """How an output element depends on input elements, as far as analyses care."""

    UNARY = "unary"  # element i of the output depends on element i of input 0, and on scalars
    BROADCAST = "broadcast"  # the same for several inputs, broadcast against each other
    MOVEMENT = "movement"  # every output element is an input element (or a filler), elsewhere
    CONTRACTION = "contraction"  # sums of products over shared axes
    POOLING = "pooling"  # a reduction over a spatial window
    NORMALIZATION = "normalization"  # the shape stays, statistics along some axes
    REDUCTION = "reduction"  # axes disappear or become 1
    SHAPE = "shape"  # depends on the shape of the input alone
    GENERATOR = "generator"  # makes a tensor from attributes and sizes
    RANDOM = "random"
    CONTROL_FLOW = "control flow"  # holds subgraphs that it runs
    QUANTIZATION = "quantization"  # between real numbers and integers
    OPAQUE = "opaque"


_KINDS: dict[OpKind, str] = {
    OpKind.UNARY: """
        Abs Acos Acosh Asin Asinh Atan Atanh Binarizer BitCast BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Dropout Elu Erf
        Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink
        Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu""",
    OpKind.BROADCAST: """
        Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul
        Or PRelu Pow Sub Sum Where Xor""",
    OpKind.MOVEMENT: """
        CenterCropPad Compress Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Pad Reshape ReverseSequence
        Scatter ScatterElements ScatterND Slice SpaceToDepth Split Squeeze TensorScatter Tile Transpose Trilu Unsqueeze""",
    OpKind.CONTRACTION: """
        Conv ConvInteger ConvTranspose DeformConv Einsum Gemm MatMul MatMulInteger QLinearConv QLinearMatMul""",
    OpKind.POOLING: """
        AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool""",
    OpKind.NORMALIZATION: """
        BatchNormalization GroupNormalization Hardmax InstanceNormalization LRN LayerNormalization LogSoftmax LpNormalization
        MeanVarianceNormalization RMSNormalization Softmax""",
    OpKind.REDUCTION: """
        ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare""",
    OpKind.SHAPE: "Shape Size",
    OpKind.GENERATOR: """
        AffineGrid BlackmanWindow Constant ConstantOfShape EyeLike HammingWindow HannWindow MelWeightMatrix OneHot Range""",
    OpKind.RANDOM: "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    OpKind.CONTROL_FLOW: "If Loop Scan SequenceMap",
    OpKind.QUANTIZATION: "DequantizeLinear DynamicQuantizeLinear QuantizeLinear",
}

# Operators that no analysis of ours looks into, by the reason why.
_OPAQUE: dict[str, str] = {
    "carries a state along the sequence": "CausalConvWithState GRU LSTM LinearAttention RNN",
    "fuses contractions with a softmax": "Attention FlexAttention",
    "orders or accumulates along an axis": "CumProd CumSum TopK",
    "the size of its output depends on data": "NonMaxSuppression NonZero Unique",
    "interpolates at computed positions": "GridSample Resize RoiAlign MaxRoiPool Upsample",
    "undoes a pooling or an unfolding": "Col2Im MaxUnpool",
    "mixes the elements of an axis": "DFT Det RotaryEmbedding STFT SwiGLU",
    "carries a sequence or an optional": """
        ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty
        SequenceErase SequenceInsert SequenceLength SplitToSequence""",
    "works on text or encoded images": "ImageDecoder RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer",
    "computes a loss, for training": "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    "takes a step of training": "Adagrad Adam Gradient Momentum",
    "is a model of classical machine learning": """
        ArrayFeatureExtractor CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder LinearClassifier
        LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble TreeEnsembleClassifier
        TreeEnsembleRegressor ZipMap""",
}

KINDS: Mapping[str, OpKind] = MappingProxyType({op: kind for kind, names in _KINDS.items() for op in names.split()})
OPAQUE_REASONS: Mapping[str, str] = MappingProxyType({op: reason for reason, names in _OPAQUE.items() for op in names.split()})

# Operators that the schema calls non-deterministic, or does not judge, only because their definition as an ONNX function is
# made per node or holds control flow. None of them draws a random number.
DETERMINISTIC: frozenset[str] = frozenset(
    ("AffineGrid", "CausalConvWithState", "DepthToSpace", "LinearAttention", "SpaceToDepth")
)
