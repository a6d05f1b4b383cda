"""How fast this installation is on this machine, and whether a difference is more than noise.

``results`` and ``timing`` are light: plain numbers, a clock that is an argument. ``cases``, ``plain``, ``floor`` and
``run`` need torch.
"""
