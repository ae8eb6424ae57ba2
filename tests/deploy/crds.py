"""The part of two custom resources that is used here, written by hand after their API references:
PodMonitor of the Prometheus operator and Certificate of cert-manager. Nothing else may stand there."""

import jsonschema

ValidationError = jsonschema.ValidationError

TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def fields(required, **properties):
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def resource(version, kind, spec):
    metadata = fields(["name"], name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
    return fields(["apiVersion", "kind", "metadata", "spec"], apiVersion={"const": version}, kind={"const": kind}, metadata=metadata, spec=spec)


DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
ENDPOINT = fields([], port=TEXT, path={"type": "string", "pattern": "^/"}, interval=DURATION, scheme={"enum": ["http", "https"]})
POD_MONITOR = fields(
    ["selector", "podMetricsEndpoints"],
    selector=fields([], matchLabels=TEXTS),
    podMetricsEndpoints={"type": "array", "minItems": 1, "items": ENDPOINT},
)
CERTIFICATE = fields(
    ["secretName", "issuerRef"],
    secretName=TEXT,
    dnsNames={"type": "array", "minItems": 1, "items": TEXT},
    issuerRef=fields(["name"], name=TEXT, kind={"enum": ["Issuer", "ClusterIssuer"]}, group=TEXT),
    privateKey=fields([], algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]}, size={"type": "integer"}, rotationPolicy={"enum": ["Never", "Always"]}),
)
SCHEMAS = {
    "PodMonitor": resource("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
    "Certificate": resource("cert-manager.io/v1", "Certificate", CERTIFICATE),
}


def validate(manifest):
    jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
