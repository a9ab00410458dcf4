"""What users and accidents do in a soak: one method per kind of deed, each entered in the book of causes before it is done."""

from __future__ import annotations

import copy
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from tests.soak.admin import CHILDREN, RESOURCES, Admin, Kind
from tests.soak.fleet import DRIFTS, HARMLESS, NAMESPACES, Fate, Model, child_names, edit_spec, make_spec
from tests.soak.ledger import Cause, Ledger

Json = dict[str, Any]
_BY_PLURAL: dict[str, Kind] = {kind.plural: kind for kind in CHILDREN}
_STRANGERS: dict[str, Json] = {
    "services": {"spec": {"selector": {"app": "mine"}, "ports": [{"port": 80, "protocol": "TCP"}]}},
    "networkpolicies": {"spec": {"podSelector": {"matchLabels": {"app": "mine"}}, "policyTypes": ["Ingress"]}},
    "deployments": {
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "mine"}},
            "template": {
                "metadata": {"labels": {"app": "mine"}},
                "spec": {"containers": [{"name": "mine", "image": "registry.example.com/mine"}]},
            },
        }
    },
}


class Hand:
    """Owns the models. All choices come from `chance`; the order of deeds depends on nothing else."""

    def __init__(self, admin: Admin, chance: random.Random, size: int) -> None:
        self.models: dict[tuple[str, str], Model] = {}
        self.strangers: dict[tuple[str, str, str], Json] = {}  # namespace, plural, name -> as it was made
        self.ledger = Ledger()
        self.deeds: Counter[str] = Counter()
        self._admin = admin
        self._chance = chance
        self._size = size
        self._number = 0

    def begin_round(self) -> None:
        """A new book. What stands in strangers' names goes on standing."""
        self.ledger = Ledger(standing=set(self.strangers))

    def act(self) -> str:
        """One random deed; returns it in a few words."""
        deeds = [
            (self._edit, 8),
            (self._drift, 8),
            (self._lose_child, 5),
            (self._touch_harmlessly, 4),
            (self._change_fate, 5),
            (self._add, 8 if len(self.models) < self._size else 1),
            (self._remove, 3),
            (self._make_anew, 2),
            (self._add_to_taken_name, 1 if len(self.strangers) < 6 else 0),
            (self._send_stranger_away, 2 if self.strangers else 0),
        ]
        (deed,) = self._chance.choices([one for one, _ in deeds], [weight for _, weight in deeds])
        said = deed()
        self.deeds[deed.__name__.removeprefix("_").replace("_", " ")] += 1
        return said

    def populate(self, count: int) -> None:
        """So many models, as fast as they can be made."""
        for _ in range(count):
            self._add()

    def settle_fates(self) -> None:
        """Nobody waits longer than one round: a wait that lasts has its own deadline, which the book does not know."""
        for model in self.models.values():
            if model.fate is Fate.PENDING:
                model.fate = Fate.READY

    # --- deeds --------------------------------------------------------------------------------------------------------

    def _add(self) -> str:
        model = self._new_model()
        self._create(model)
        return f"made {model.name}"

    def _edit(self) -> str:
        model = self._pick()
        what, spec = edit_spec(self._chance, model.spec)
        model.wish(spec)
        self._enter("llmdeployments", model.namespace, model.name, f"edited {what} of")
        self._admin.replace_spec(RESOURCES, model.namespace, model.name, spec)
        return f"edited {what} of {model.name}"

    def _remove(self) -> str:
        model = self._pick()
        del self.models[model.key]
        self._enter("llmdeployments", model.namespace, model.name, "deleted")
        self._admin.delete(RESOURCES, model.namespace, model.name)
        return f"deleted {model.name}"

    def _make_anew(self) -> str:
        """Deleted, and made again under the same name before its children are gone."""
        model = self._pick()
        self._remove_and_create(model)
        return f"made {model.name} anew"

    def _remove_and_create(self, model: Model) -> None:
        self._enter("llmdeployments", model.namespace, model.name, "deleted")
        self._admin.delete(RESOURCES, model.namespace, model.name)
        anew = Model(model.namespace, model.name, {}, taken=set(model.taken))
        anew.wish(make_spec(self._chance))
        self._create(anew)

    def _drift(self) -> str:
        model, (plural, name) = self._pick_child()
        what, patch = self._chance.choice(DRIFTS[plural])
        self._enter(plural, model.namespace, name, f"changed {what} of")
        self._admin.patch(_BY_PLURAL[plural], model.namespace, name, patch)
        return f"changed {what} of {plural}/{name}"

    def _touch_harmlessly(self) -> str:
        """Nothing that this causes is explained, unless the network hid the end of it."""
        model, (plural, name) = self._pick_child()
        what, patch = self._chance.choice(HARMLESS)
        filled = copy.deepcopy(patch)
        for values in filled["metadata"].values():
            for key, value in values.items():
                values[key] = value.format(number=self._chance.randrange(10**6))
        self._enter(plural, model.namespace, name, f"gave {what} to", harmless=True)
        self._admin.patch(_BY_PLURAL[plural], model.namespace, name, filled)
        return f"gave {plural}/{name} {what} of no meaning"

    def _lose_child(self) -> str:
        model, (plural, name) = self._pick_child()
        self._enter(plural, model.namespace, name, "deleted")
        self._admin.delete(_BY_PLURAL[plural], model.namespace, name)
        return f"deleted {plural}/{name}"

    def _change_fate(self) -> str:
        model = self._pick()
        model.fate = self._chance.choice([fate for fate in Fate if fate is not model.fate])
        return f"pods of {model.name} are {model.fate}"

    def _add_to_taken_name(self) -> str:
        model = self._new_model()
        plural = self._chance.choice(
            [plural for plural, _ in child_names(model.spec, model.name) if plural in _STRANGERS]
        )
        key = (model.namespace, plural, model.name)
        self.strangers[key] = self._admin.create(_BY_PLURAL[plural], model.namespace, model.name, _STRANGERS[plural])
        self.ledger.standing.add(key)
        model.taken.add((plural, model.name))
        self._create(model)
        return f"made {model.name}, whose {plural} somebody has"

    def _send_stranger_away(self) -> str:
        """Then the user edits the model: who has a name that the operator does not watch goes unheard."""
        key = self._chance.choice(sorted(self.strangers))
        namespace, plural, name = key
        del self.strangers[key]
        self._enter(plural, namespace, name, "somebody's was deleted, of")
        self._admin.delete(_BY_PLURAL[plural], namespace, name)
        model = self.models.get((namespace, name))
        if model is not None:
            model.taken.discard((plural, name))
            spec = {**model.spec, "service": {"annotations": {"soak": str(self._chance.randrange(10**6))}}}
            model.wish(spec)
            self._enter("llmdeployments", namespace, name, "edited service of")
            self._admin.replace_spec(RESOURCES, namespace, name, spec)
        return f"removed somebody's {plural}/{name}"

    # --- parts --------------------------------------------------------------------------------------------------------

    def _new_model(self) -> Model:
        self._number += 1
        model = Model(self._chance.choice(NAMESPACES), f"m{self._number:04d}", {})
        model.wish(make_spec(self._chance))
        return model

    def _create(self, model: Model) -> None:
        self.models[model.key] = model
        self._enter("llmdeployments", model.namespace, model.name, "made")
        self._admin.create(RESOURCES, model.namespace, model.name, {"spec": model.spec})

    def _pick(self) -> Model:
        return self.models[self._chance.choice(sorted(self.models))]

    def _pick_child(self) -> tuple[Model, tuple[str, str]]:
        """A child that should be there, is not a stranger's, and will be put right: of a model that cannot be planned none is."""
        while True:
            model = self._pick()
            children = [child for child in child_names(model.spec, model.name) if child not in model.taken]
            if model.is_good and children:
                return model, self._chance.choice(sorted(children))

    def _enter(self, resource: str, namespace: str, name: str, what: str, *, harmless: bool = False) -> None:
        self.ledger.enter(Cause(datetime.now(UTC), resource, namespace, name, what, harmless))
