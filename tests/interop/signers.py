#!/usr/bin/env python3
"""The Python client libraries as a table: how each signs a message, sends one, or verifies one.

    signers.py sign URL   prints a line of JSON per library: the message, signed if the library can sign
    signers.py verify     reads lines {name, secret, url, headers, body_b64}, answers each with {name, accepted, fault}
    signers.py send       reads lines {name, secret, url}: the library itself sends a message to the URL

`signers.mjs` does the same for JavaScript. `run.py` describes the members of a line."""

import asyncio
import base64
import hashlib
import http.server
import importlib.metadata
import json
import secrets
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Callable
from urllib.parse import parse_qsl

import anthropic
import elevenlabs
import gocardless_pro.webhooks
import httpx
import jwt
import openai
import stripe
from a2a.server.context import ServerCallContext
from a2a.server.tasks import BasePushNotificationSender, InMemoryPushNotificationConfigStore
from a2a.types import AuthenticationInfo, TaskPushNotificationConfig, TaskState, TaskStatus, TaskStatusUpdateEvent
from Adyen.util import generate_notification_sig, generate_payload_sig, is_valid_hmac_notification
from box_sdk_gen.internal.utils import compute_webhook_signature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from discord_interactions import verify_key
from easypost.util import validate_webhook as validate_easypost
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms
from hubspot.utils.signature import Signature as HubspotSignature
from linebot.v3.webhook import SignatureValidator
from livekit.api.access_token import AccessToken
from messagebird.request_validator import RequestValidator as BirdValidator
from modern_treasury import ModernTreasury
from onfido.webhook_event_verifier import WebhookEventVerifier as OnfidoVerifier
from paddle_billing.Notifications import PaddleSignature
from pusher import Pusher
from pyairtable.models.webhook import WebhookNotification as AirtableNotification
from razorpay.utility import Utility as RazorpayUtility
from replicate.webhook import Webhooks as ReplicateWebhooks, WebhookSigningSecret
from retell.lib.webhook_auth import symmetric as retell
from sendgrid.helpers.eventwebhook import EventWebhook
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook as StandardWebhook
from stream_chat.webhook import verify_signature as verify_stream
from svix.webhooks import Webhook as SvixWebhook
from twilio.request_validator import RequestValidator
from workos.webhooks._verification import verify_header as verify_workos

BODY = '{"id":"evt_1","object":"event","type":"job.completed","text":"grüße"}'
TEXT = secrets.token_hex(16)
WHSEC = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
ECDSA = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)


@dataclass
class Message:
    secret: str
    url: str
    headers: dict
    text: str
    signed_body: bool | list
    now: int = field(default_factory=lambda: int(time.time()))

    @property
    def time(self):
        return datetime.fromtimestamp(self.now, tz=timezone.utc)


@dataclass
class Library:
    package: str                        # its name on PyPI
    preset: str                         # of Callgate
    secret: str = TEXT                  # the secret in the configuration of Callgate
    sign: Callable | None = None        # Message -> the signed headers; may change the body
    send: Callable | None = None        # (url, secret): sends a message there
    verify: Callable | None = None      # Message -> False or an exception if the message is not genuine
    by_hand: Callable | None = None     # like `sign`, but by this test: neither the library nor Callgate can sign
    signed: tuple | None = None         # the signed headers; default: the ones that `sign` returned
    signed_body: bool | list = True     # the whole body, nothing, or these texts in the body
    headers: dict = field(default_factory=dict)             # unsigned headers
    body: str = BODY
    query: str = ""                     # the signed query, if there is one
    settings: Callable = lambda url: {}                     # further settings of the provider

    @property
    def name(self):
        return f"pypi-{self.preset}"


def standard_webhooks(prefix, webhook):
    return lambda m: {f"{prefix}-id": "msg_1", f"{prefix}-timestamp": str(m.now),
                      f"{prefix}-signature": webhook(m.secret).sign("msg_1", m.time, m.text)}


def slack(m):
    signature = SignatureVerifier(m.secret).generate_signature(timestamp=str(m.now), body=m.text)
    return {"x-slack-request-timestamp": str(m.now), "x-slack-signature": signature}


def twilio_form(m):
    return {"x-twilio-signature": RequestValidator(m.secret).compute_signature(m.url, dict(parse_qsl(m.text)))}


def hubspot_v3(m):
    now = str(m.now * 1000)
    signature = HubspotSignature.get_signature(m.secret, m.text, "v3", m.url, "POST", now)
    return {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": now}


def hubspot_v2(m):
    return {"x-hubspot-signature": HubspotSignature.get_signature(m.secret, m.text, "v2", m.url, "POST")}


def adyen_item(m):
    item = {"pspReference": "7914073381342284", "originalReference": "", "merchantAccountCode": "TestMerchant",
            "merchantReference": "Payment-14", "amount": {"value": 1130, "currency": "EUR"},
            "eventCode": "AUTHORISATION", "success": "true"}
    signature = generate_notification_sig(item, m.secret).decode()
    item["additionalData"] = {"hmacSignature": signature}
    notification = {"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}
    assert is_valid_hmac_notification(notification, m.secret)
    m.text = json.dumps(notification)
    signed = [item[name] for name in ("pspReference", "merchantAccountCode", "merchantReference", "eventCode", "success")]
    m.signed_body = [json.dumps(value) for value in [*signed, 1130, "EUR", signature]]
    return {}


def paddle(m):
    signature = PaddleSignature.calculate_hmac(m.secret, f"{m.now}:{m.text}".encode())
    return {"paddle-signature": f"ts={m.now};h1={signature.hexdigest()}"}


def hubspot_v1(m):
    return {"x-hubspot-signature": HubspotSignature.get_signature(m.secret, m.text, "v1")}


def bird_by_hand(m):
    digest = lambda text: hashlib.sha256(text.encode()).hexdigest()
    claims = {"iss": "MessageBird", "iat": m.now, "nbf": m.now, "exp": m.now + 600, "jti": secrets.token_hex(8),
              "url_hash": digest(m.url), "payload_hash": digest(m.text)}
    return {"messagebird-signature-jwt": jwt.encode(claims, m.secret, algorithm="HS256")}


BOX = {"box-signature-version": "1", "box-signature-algorithm": "HmacSHA256"}


def box(m):
    stamp = {"box-delivery-timestamp": m.time.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return {"box-signature-primary": compute_webhook_signature(m.text, {**BOX, **stamp}, m.secret), **stamp}


def livekit(m):
    digest = base64.b64encode(hashlib.sha256(m.text.encode()).digest()).decode()
    token = AccessToken(*m.secret.split(":")).with_sha256(digest).with_ttl(timedelta(minutes=5))
    return {"authorization": token.to_jwt()}


PUSHER = "push@project.iam.gserviceaccount.com"


def jwk(key, algorithm, kind):
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": "k1", "alg": algorithm, "use": "sig"}


def spki(key, encoding):
    return key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def pubsub(m):
    claims = {"iss": "https://accounts.google.com", "aud": m.url, "sub": "113774264463038321964", "email": PUSHER,
              "email_verified": True, "iat": m.now, "exp": m.now + 600}
    return {"authorization": "Bearer " + jwt.encode(claims, RSA, algorithm="RS256", headers={"kid": "k1"})}


UCP = ["@method", "@authority", "@path", "@query", "content-digest", "content-type"]


class OneKey(HTTPSignatureKeyResolver):
    def __init__(self, key):
        self.key = key

    def resolve_private_key(self, key_id):
        return self.key


def rfc9421(algorithm, key, components):
    def sign(m):
        message = SimpleNamespace(method="POST", url=m.url, headers={"content-type": "application/json"})
        signer = HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=OneKey(key))
        signer.sign(message, key_id="k1", created=m.time, body=m.text.encode(), covered_component_ids=components)
        return {name.lower(): value for name, value in message.headers.items()
                if name.lower() in ("signature", "signature-input") or name.lower() in components}
    return sign


def a2a(**how):
    """Sends the notification of a finished task with the sender of the A2A server."""
    async def sending(url, secret):
        store = InMemoryPushNotificationConfigStore()
        config = TaskPushNotificationConfig(task_id="task-1", id="1", url=url, **{k: v(secret) for k, v in how.items()})
        await store.set_info("task-1", config, ServerCallContext())
        status = TaskStatus(state=TaskState.TASK_STATE_COMPLETED)
        event = TaskStatusUpdateEvent(task_id="task-1", context_id="context-1", status=status)
        async with httpx.AsyncClient() as client:
            await BasePushNotificationSender(client, store).send_notification("task-1", event)
    return lambda url, secret: asyncio.run(sending(url, secret))


STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
SENDGRID = ("x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp")
DISCORD = ("x-signature-ed25519", "x-signature-timestamp")


def sendgrid_by_hand(m):
    signature = ECDSA.sign(f"{m.now}{m.text}".encode(), ec.ECDSA(hashes.SHA256()))
    return dict(zip(SENDGRID, [base64.b64encode(signature).decode(), str(m.now)]))


def discord_by_hand(m):
    return dict(zip(DISCORD, [ED25519.sign(f"{m.now}{m.text}".encode()).hex(), str(m.now)]))


LIBRARIES = [
    # Libraries that sign.
    Library("standardwebhooks", "standard-webhooks", WHSEC, standard_webhooks("webhook", StandardWebhook)),
    Library("svix", "svix", WHSEC, standard_webhooks("svix", SvixWebhook)),
    Library("stripe", "stripe", sign=lambda m: {
        "stripe-signature": stripe.WebhookSignature.generate_signature_header(m.text, m.secret, m.now)}),
    Library("slack_sdk", "slack", sign=slack),
    Library("twilio", "twilio", sign=twilio_form, query="?foo=1&bar=%2F",
            headers={"content-type": "application/x-www-form-urlencoded"},
            body="CallSid=CA1&From=%2B14158675309&To=%C3%BC+x&Digits=12"),
    Library("retell-sdk", "retell", sign=lambda m: {"x-retell-signature": retell["sign"](m.text, m.secret, m.now * 1000)}),
    Library("hubspot-api-client", "hubspot", sign=hubspot_v3, query="?foo=1"),
    Library("hubspot-api-client", "hubspot-v2", sign=hubspot_v2, query="?foo=1",
            headers={"x-hubspot-signature-version": "v2"}),
    Library("hubspot-api-client", "hubspot-v1", sign=hubspot_v1, headers={"x-hubspot-signature-version": "v1"}),
    Library("modern-treasury", "modern-treasury", sign=lambda m: {
        "x-signature": ModernTreasury(api_key="-", organization_id="-").webhooks.get_signature(m.text, key=m.secret)}),
    Library("Adyen", "adyen", secrets.token_hex(32).upper(), adyen_item),
    Library("Adyen", "adyen-platform", secrets.token_hex(32).upper(),
            lambda m: {"hmacsignature": generate_payload_sig(m.text.encode(), m.secret).decode()},
            headers={"protocol": "HmacSHA256"}),
    Library("paddle-python-sdk", "paddle", sign=paddle, settings=lambda url: {"tolerance": "10m"}),
    Library("boxsdk", "box", sign=box, headers=BOX),
    Library("livekit-api", "livekit", "APIkey:" + secrets.token_hex(16), livekit,
            headers={"content-type": "application/webhook+json"}),
    Library("PyJWT", "google-pubsub", json.dumps({"keys": [jwk(RSA, "RS256", jwt.algorithms.RSAAlgorithm)]}), pubsub,
            signed_body=False, settings=lambda url: {"expect": {"audience": url, "email": PUSHER}}),
    Library("http-message-signatures", "ucp", json.dumps(jwk(ECDSA, "ES256", jwt.algorithms.ECAlgorithm)),
            rfc9421(algorithms.ECDSA_P256_SHA256, ECDSA, UCP), query="?foo=1"),
    Library("http-message-signatures", "mailchannels", spki(ED25519, Encoding.PEM).decode(),
            rfc9421(algorithms.ED25519, ED25519, ["content-digest"])),
    # Libraries that send.
    Library("a2a-sdk", "a2a-token", secrets.token_hex(16), send=a2a(token=str),
            signed=("x-a2a-notification-token",), signed_body=False),
    Library("a2a-sdk", "a2a-bearer", secrets.token_hex(16), signed=("authorization",), signed_body=False,
            send=a2a(authentication=lambda secret: AuthenticationInfo(scheme="Bearer", credentials=secret))),
    # Libraries that only verify.
    Library("openai", "openai", WHSEC, signed=STANDARD,
            verify=lambda m: openai.OpenAI(api_key="-").webhooks.unwrap(m.text, m.headers, secret=m.secret)),
    Library("anthropic", "anthropic", WHSEC, signed=STANDARD,
            verify=lambda m: anthropic.Anthropic(api_key="-").beta.webhooks.unwrap(m.text, headers=m.headers, key=m.secret)),
    Library("replicate", "replicate", WHSEC, signed=STANDARD,
            verify=lambda m: ReplicateWebhooks.validate(
                headers=m.headers, body=m.text, secret=WebhookSigningSecret(key=m.secret), tolerance=300)),
    Library("elevenlabs", "elevenlabs", signed=("elevenlabs-signature",),
            verify=lambda m: elevenlabs.ElevenLabs(api_key="-").webhooks.construct_event(
                m.text, m.headers["elevenlabs-signature"], m.secret)),
    Library("line-bot-sdk", "line", signed=("x-line-signature",),
            verify=lambda m: SignatureValidator(m.secret).validate(m.text, m.headers["x-line-signature"])),
    Library("workos", "workos", signed=("workos-signature",), settings=lambda url: {"tolerance": "10m"},
            verify=lambda m: verify_workos(
                event_body=m.text.encode(), event_signature=m.headers["workos-signature"], secret=m.secret)),
    Library("razorpay", "razorpay", signed=("x-razorpay-signature",),
            verify=lambda m: RazorpayUtility().verify_webhook_signature(
                m.text, m.headers["x-razorpay-signature"], m.secret)),
    Library("gocardless_pro", "gocardless", signed=("webhook-signature",), body='{"events":[],"text":"grüße"}',
            verify=lambda m: gocardless_pro.webhooks.parse(m.text, m.secret, m.headers["webhook-signature"]) == []),
    Library("onfido-python", "onfido", signed=("x-sha2-signature",),
            body='{"payload":{"resource_type":"check","action":"check.completed","object":{"id":"1"}},"text":"grüße"}',
            verify=lambda m: OnfidoVerifier(m.secret).read_payload(m.text, m.headers["x-sha2-signature"]) is not None),
    Library("pusher", "pusher", signed=("x-pusher-signature",), settings=lambda url: {"tolerance": "10m"},
            body=f'{{"time_ms":{int(time.time() * 1000)},"events":[],"text":"grüße"}}',
            verify=lambda m: Pusher(app_id="1", key="k", secret=m.secret).validate_webhook(
                "k", m.headers["x-pusher-signature"], m.text) is not None),
    Library("stream-chat", "getstream", signed=("x-signature",),
            verify=lambda m: verify_stream(m.text, m.headers["x-signature"], m.secret)),
    Library("easypost", "easypost", signed=("x-hmac-signature",), verify=lambda m: validate_easypost(
        m.text.encode(), {"X-Hmac-Signature": m.headers["x-hmac-signature"]}, m.secret) is not None),
    # This library reads ASCII only.
    Library("pyairtable", "airtable", base64.b64encode(secrets.token_bytes(32)).decode(), signed=("x-airtable-content-mac",),
            body='{"base":{"id":"app1"},"webhook":{"id":"ach1"},"timestamp":"2026-01-01T00:00:00.000Z","text":"-"}',
            verify=lambda m: AirtableNotification.from_request(
                m.text, m.headers["x-airtable-content-mac"], m.secret) is not None),
    Library("messagebird", "messagebird", by_hand=bird_by_hand, verify=lambda m: BirdValidator(
        m.secret).validate_signature(m.headers["messagebird-signature-jwt"], m.url, m.text.encode()) is not None),
    Library("sendgrid", "sendgrid", base64.b64encode(spki(ECDSA, Encoding.DER)).decode(), by_hand=sendgrid_by_hand,
            verify=lambda m: EventWebhook(m.secret).verify_signature(m.text, *[m.headers[name] for name in SENDGRID])),
    Library("discord-interactions", "discord", ED25519.public_key().public_bytes_raw().hex(), by_hand=discord_by_hand,
            verify=lambda m: verify_key(m.text.encode(), *[m.headers[name] for name in DISCORD], m.secret)),
]


def recorded(library):
    """Returns the body and the headers of the message that a library sends."""
    seen = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(self.rfile.read(int(self.headers["content-length"])).decode())
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    library.send(f"http://127.0.0.1:{server.server_port}/", library.secret)
    server.shutdown()
    return seen


def line(library, public_url):
    target = f"/hooks/{library.name}{library.query}"
    message = Message(library.secret, public_url + target, {}, library.body, library.signed_body)
    headers = {"content-type": "application/json", **library.headers}
    signer, signed = library.sign or library.by_hand, {}
    if library.send:
        message.text, sent = recorded(library)
        headers["content-type"] = sent["content-type"]
        signed = {name: sent[name] for name in library.signed}
    elif signer:
        signed = signer(message)
    return {
        "name": library.name, "library": library.package, "version": importlib.metadata.version(library.package),
        "signs": bool(library.sign or library.send), "sends": bool(library.send), "complete": bool(signer or library.send),
        "preset": library.preset, "settings": library.settings(message.url), "secret": library.secret,
        "public_url": public_url, "method": "POST", "target": target, "at": message.now, "headers": {**headers, **signed},
        "body_b64": base64.b64encode(message.text.encode()).decode(),
        "signed_headers": list(library.signed or signed), "signed_body": message.signed_body,
        "signed_query": bool(library.query),
    }


def verdict(library, given):
    text = base64.b64decode(given["body_b64"]).decode()
    message = Message(given["secret"], given["url"], given["headers"], text, True)
    try:
        accepted, fault = library.verify(message) is not False, ""
    except Exception as raised:
        accepted, fault = False, f"{type(raised).__name__}: {raised}"
    return {"name": library.name, "accepted": accepted, "fault": fault}


def main():
    answer, sys.stdout = sys.stdout, sys.stderr     # some libraries print
    if sys.argv[1] == "sign":
        for library in LIBRARIES:
            print(json.dumps(line(library, sys.argv[2])), file=answer)
        return
    named = {library.name: library for library in LIBRARIES}
    for given in map(json.loads, sys.stdin):
        library = named[given["name"]]
        if sys.argv[1] == "send":
            library.send(given["url"], given["secret"])
        else:
            print(json.dumps(verdict(library, given)), file=answer)


if __name__ == "__main__":
    main()
