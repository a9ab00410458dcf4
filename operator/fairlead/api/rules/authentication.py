"""Rules of LLMRoute about callers: which ways in go together, and who is known by them."""

from __future__ import annotations

from typing import Any, Final

from fairlead.api.rules.table import Rule, choose, pattern_rule

__all__ = ["AUTHENTICATION_RULES"]


def _role_of_anonymous_ok(spec: Any) -> bool:
    anonymous = spec.authentication.anonymous
    if anonymous is None:
        return True
    return anonymous.role in [role.name for role in spec.roles] if spec.roles else anonymous.role is None


def _explain_anonymous(spec: Any) -> tuple[str, str]:
    role = spec.authentication.anonymous.role
    if not spec.roles:
        return f"role {role} is not in spec.roles, which is empty", "anonymous: {} would work, or add the role"
    if role is None:
        return "needs a role, since spec.roles has some", f"role: {spec.roles[0].name} would work"
    return f"role {role} is not in spec.roles", choose(role, [role.name for role in spec.roles])


def _consumers_without_keys(spec: Any) -> bool:
    way = spec.authentication
    return way.api_keys is None and way.jwt is None and any(role.consumers for role in spec.roles)


def _explain_jwks(jwks: Any) -> tuple[str, str]:
    if jwks.secret_ref is None:
        return (
            "neither secretRef nor configMapRef is given",
            "for instance configMapRef: {name: issuer, key: jwks.json}",
        )
    return "both secretRef and configMapRef are given", "leave one of the two out"


AUTHENTICATION_RULES: Final = (
    Rule(
        id="authentication.some",
        at="spec.authentication",
        holds=lambda way: way.api_keys is not None or way.jwt is not None or way.anonymous is not None,
        cel="has(self.apiKeys) || has(self.jwt) || has(self.anonymous)",
        message="nobody could call: neither apiKeys nor jwt nor anonymous is given",
        remedy="anonymous: {} lets everybody in who reaches the gateway",
    ),
    Rule(
        id="authentication.anonymous.role",
        at="spec",
        field=".authentication.anonymous",
        holds=_role_of_anonymous_ok,
        cel="!has(self.authentication.anonymous) || (has(self.roles) && size(self.roles) > 0"
        " ? has(self.authentication.anonymous.role) && self.roles.exists(r, r.name == self.authentication.anonymous.role)"
        " : !has(self.authentication.anonymous.role))",
        message="anonymous.role must name an entry of spec.roles, and be absent without roles",
        remedy="correct the name, or add the role",
        explain=_explain_anonymous,
    ),
    Rule(
        id="roles.consumers.keys",
        at="spec",
        field=".roles",
        holds=lambda spec: not _consumers_without_keys(spec),
        cel="has(self.authentication.apiKeys) || has(self.authentication.jwt)"
        " || !has(self.roles) || !self.roles.exists(r, has(r.consumers) && size(r.consumers) > 0)",
        message="consumers are known by keys or tokens, and both authentication.apiKeys and authentication.jwt are absent",
        remedy="add authentication.apiKeys or authentication.jwt, or leave consumers out",
    ),
    Rule(
        id="authentication.jwt.jwks.kind",
        at="spec.authentication.jwt.jwks",
        holds=lambda jwks: (jwks.secret_ref is None) != (jwks.config_map_ref is None),
        cel="has(self.secretRef) != has(self.configMapRef)",
        message="exactly one of secretRef and configMapRef must be given",
        remedy="give one of the two",
        explain=_explain_jwks,
    ),
    pattern_rule(
        "authentication.jwt.issuer.charset",
        "spec.authentication.jwt.issuer",
        "[!-~]+",
        "is not what a token has as iss: ASCII letters, digits and signs, without spaces",
        "for instance https://id.example.com",
    ),
    pattern_rule(
        "authentication.jwt.consumerClaim.charset",
        "spec.authentication.jwt.consumerClaim",
        "[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*",
        "is not the name of a claim: letters, digits, - and _, with dots between nested names",
        "for instance sub or team",
    ),
)
