"""Schemas of custom resources, written by hand after their API references: PodMonitor and PrometheusRule of the
Prometheus operator, and Certificate and Issuer of cert-manager. They contain only the fields that deploy/ uses."""

import jsonschema

ValidationError = jsonschema.ValidationError

TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def fields(required, **properties):
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def resource(version, kind, spec):
    metadata = fields(["name"], name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
    return fields(["apiVersion", "kind", "metadata", "spec"], apiVersion={"const": version}, kind={"const": kind}, metadata=metadata, spec=spec)


DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}
ENDPOINT = fields([], port=TEXT, path={"type": "string", "pattern": "^/"}, interval=DURATION, scheme={"enum": ["http", "https"]})
POD_MONITOR = fields(
    ["selector", "podMetricsEndpoints"],
    selector=fields([], matchLabels=TEXTS),
    podMetricsEndpoints={"type": "array", "minItems": 1, "items": ENDPOINT},
)
RULE = {
    **fields(["expr"], record=TEXT, alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS, **{"for": DURATION}),
    "oneOf": [{"required": ["record"]}, {"required": ["alert"]}],
}
GROUP = fields(["name", "rules"], name=TEXT, interval=DURATION, rules={"type": "array", "minItems": 1, "items": RULE})
PROMETHEUS_RULE = fields(["groups"], groups={"type": "array", "minItems": 1, "items": GROUP})
CERTIFICATE = fields(
    ["secretName", "issuerRef"],
    secretName=TEXT,
    dnsNames={"type": "array", "minItems": 1, "items": TEXT},
    issuerRef=fields(["name"], name=TEXT, kind={"enum": ["Issuer", "ClusterIssuer"]}, group=TEXT),
    privateKey=fields([], algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]}, size={"type": "integer"}, rotationPolicy={"enum": ["Never", "Always"]}),
)
ISSUER = fields(["selfSigned"], selfSigned={"type": "object", "maxProperties": 0})
SCHEMAS = {
    "PodMonitor": resource("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
    "PrometheusRule": resource("monitoring.coreos.com/v1", "PrometheusRule", PROMETHEUS_RULE),
    "Issuer": resource("cert-manager.io/v1", "Issuer", ISSUER),
    "Certificate": resource("cert-manager.io/v1", "Certificate", CERTIFICATE),
}


def validate(manifest):
    jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
