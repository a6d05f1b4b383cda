"""How fast this installation is on this machine, and whether a difference is more than noise.

``results`` and ``timing`` are light: plain numbers, a clock that is an argument. The rest needs torch. The cases are in
``cases``, ``feeding``, ``together`` and ``desk``; ``setting`` has what they share; ``plain``, ``apart`` and ``scripts``
have the peers that ours is compared with.
"""
