"""A menu of layers for a role that the pages share."""

from __future__ import annotations

from napari.layers import Layer

from napari_em_da._napari.choice import LayerChoice
from napari_em_da._napari.session import ROLES, Role, Session


class RoleChoice(LayerChoice):
    """A menu of layers that shows, and sets, which layer plays a role in the session.

    All menus of one role show the same layer. The first item stands for no layer: a role is never given to a layer that
    the user did not choose, except by ``suggest``.

    Parameters
    ----------
    session : Session
    role : str
        Key of ``session.ROLES``.
    kind : type of layer, or several
        A layer of another type that plays the role is not shown, and keeps it.
    optional : bool
        The role may stay empty: the first item reads "none" rather than "choose a layer …".
    suggest : bool
        Where the role is empty and exactly one layer of this type plays no role yet, take that one at once: for pages
        that stand alone.
    """

    def __init__(
        self,
        session: Session,
        role: Role,
        kind: type[Layer] | tuple[type[Layer], ...],
        *,
        optional: bool = False,
        suggest: bool = False,
    ) -> None:
        self._session = session
        self._following = False
        self.role: Role = role
        super().__init__(session.viewer, kind, optional=True, empty="none" if optional else "choose a layer …")
        self.setToolTip(ROLES[role])
        self._show_role()
        self.chosen.connect(self._tell)
        session.changed.connect(self._follow)
        self.destroyed.connect(lambda *_: session.changed.disconnect(self._follow, missing_ok=True))
        if suggest and self.layer is None:
            self._suggest()

    def _tell(self) -> None:
        if not self._following:
            self._session.assign(self.role, self.layer)

    def _follow(self, what: str) -> None:
        if what == self.role:
            self._show_role()

    def _show_role(self) -> None:
        layer = self._session.layer(self.role)
        if layer is not self.layer:
            self._following = True
            self.setCurrentIndex(max(0, self._index_of(layer)))
            self._following = False

    def _suggest(self) -> None:
        taken = [self._session.layer(role) for role in ROLES]
        free = [layer for layer in self.layers() if not any(layer is other for other in taken)]
        if len(free) == 1:
            self._session.assign(self.role, free[0])
            self._show_role()
