"""Numbers of the paper that the code needs, each once, with its section and unit."""

BATCH = 128
"""Images a step (section 5)."""

MOMENTUM = 0.9
"""Factor of the old velocity in the update (section 5)."""

FIGURE_1_TARGET = 0.25
"""Training error, as a fraction, that the nets of Figure 1 are timed to (section 3.1)."""

CROP = 224
"""Side of the input in pixels (section 3.5); how 55 places come of it, the paper does not say."""

STORED = 256
"""Side of the stored images in pixels (section 2)."""

CLASSES = 1000
"""Classes of ILSVRC (section 2)."""

LRN_SIZE = 5
LRN_ALPHA = 1e-4
LRN_BETA = 0.75
LRN_K = 2.0
"""n, alpha, beta and k of local response normalisation (section 3.3)."""

LEARNING_RATE = 0.01
"""The rate at the start of training (section 5)."""

WEIGHT_DECAY = 0.0005
"""In the update rule (section 5)."""

COLOUR_STD = 0.1
"""Standard deviation of the colour noise, times the eigenvalues (section 4.1)."""

EPOCHS = 90
"""Roughly how many "cycles through the training set" there were (section 5)."""

TRAINING_IMAGES = 1_200_000
"""Training images of ILSVRC, roughly (section 2)."""

TRAINING_DAYS = 5.5
"""Between five and six days on two GTX 580 GPUs (section 5)."""

GTX_580_FLOPS = 1.581e12
"""Single-precision peak of one GTX 580, operations a second: 512 cores x 2 x 1.544 GHz (not in the paper)."""

FIGURE_2_NEURONS = (253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000)
"""Neurons of each layer as the caption of Figure 2 prints them."""

TABLE_2_TOP5 = {"five": (16.4, 16.4), "seven": (15.4, 15.3)}
"""Top-5 error in percent on the ILSVRC-2012 validation and test sets, by how many networks were averaged (Table 2)."""

ILSVRC_2012_TOP5 = {"winner": 15.315, "runner-up": 26.172}
"""Top-5 error in percent on the test set of ILSVRC-2012; the paper rounds both (Table 2).

These digits are not in the paper; the organisers published them: image-net.org/challenges/LSVRC/2012/results.html.
"""

RGB_EIGENVALUES = tuple(value * 255**2 for value in (0.2175, 0.0188, 0.0045))
"""Eigenvalues of the covariance of ImageNet's RGB in 0..255. Not in the paper; fb.resnet.torch has them for RGB in 0..1
(datasets/imagenet.lua)."""
