"""From a choice of claims to records on disk: one session, its scheduler, and where the trials run.

``session`` and ``work`` are light: they decide what runs next, without torch. ``runner`` runs trials on this machine,
``cluster`` and ``remote`` on Ray.
"""
