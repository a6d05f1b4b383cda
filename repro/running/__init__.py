"""From a choice of claims to records on disk: one session, its scheduler, and where the trials run.

``session`` and ``work`` are light: what comes next is decided without torch. ``runner`` runs trials here, ``cluster``
and ``remote`` on Ray.
"""
