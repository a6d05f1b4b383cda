"""The quantitative claims of the 2012 AlexNet paper, executable."""

__version__ = "0.1.0"
