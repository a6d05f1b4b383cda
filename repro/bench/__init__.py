"""How fast this installation is on this machine, and whether a difference is more than noise.

``results`` and ``timing`` are light: plain numbers, a clock that is an argument. The rest needs torch: the cases, in
``cases``, ``feeding``, ``together`` and ``desk``, what they share, in ``setting``, and what ours stands beside, in
``plain``, ``apart`` and ``scripts``.
"""
