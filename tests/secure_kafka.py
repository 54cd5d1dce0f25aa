"""Apache Kafka with TLS, four SASL mechanisms and access control, and its certificates."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.brokers import KafkaBroker
from tracker.demo.processes import free_port
from tracker.kafka.rights import Right

USER, PASSWORD = "tracker", "of-the-tracker"

SEEN_SECONDS = 1.5
"""Time that the broker may take to act on changed rights."""

RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}

SECURE = """\
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{ssl},\
CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{sasl},\
SSL://127.0.0.1:{ssl}
controller.quorum.voters=1@127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^.*CN=([a-z]+).*$/$1/
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required {passwords};
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
unsecuredLoginStringClaim_sub="broker";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
"""


class SecureBroker(KafkaBroker):
    """One broker with a listener without protection for the test itself, whose user may do all.

    `certificates` has ca.pem and client.pem with client.key; `token_file` a token of the user.
    """

    def __init__(self, folder: Path, others: Sequence[str] = ()) -> None:
        """Make certificates, and format the data folder; the others are users by PLAIN alone."""
        self.certificates = folder / "certificates"
        self.certificates.mkdir(parents=True)
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(self.certificates / "ca.pem"))
        broker = self.authority.issue_cert("127.0.0.1")
        key = load_pem_private_key(broker.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Java's form
        for part in broker.cert_chain_pems:
            pem += part.bytes()
        (self.certificates / "broker.pem").write_bytes(pem)
        self.issue(self.authority)
        self.token_file = folder / "token"
        self.renew_token()
        plain, self.sasl_port, self.ssl_port = free_port(), free_port(), free_port()
        extra = SECURE.format(
            plain=plain,
            sasl=self.sasl_port,
            ssl=self.ssl_port,
            controller=free_port(),
            folder=self.certificates,
            passwords=" ".join(f'user_{name}="{PASSWORD}"' for name in (USER, *others)),
        )
        super().__init__(folder, plain, extra)

    def issue(self, authority: trustme.CA) -> None:
        """Write a client certificate of the user, in the place of the one before."""
        client = authority.issue_cert(f"{USER}@example.org", common_name=USER)
        client.cert_chain_pems[0].write_to_path(str(self.certificates / "client.pem"))
        client.private_key_pem.write_to_path(str(self.certificates / "client.key"))

    def renew_token(self, seconds: float = 3600.0) -> None:
        """Write a token of the user, in the form that a broker for tests takes."""
        now = time.time()
        claims = {"sub": USER, "iat": now, "exp": now + seconds}
        parts = [{"alg": "none"}, claims]
        encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts]
        self.token_file.write_bytes(b".".join([*encoded, b""]) + b"\n")

    def settings(self, mechanism: str, user: str = USER) -> dict[str, Any]:
        """Return the settings that reach the broker by a mechanism of SASL, or by mutual TLS."""
        ca = {"tls_ca_file": self.certificates / "ca.pem"}
        if mechanism == "mutual TLS":
            return ca | {
                "brokers": f"127.0.0.1:{self.ssl_port}",
                "security_protocol": "SSL",
                "tls_cert_file": self.certificates / "client.pem",
                "tls_key_file": self.certificates / "client.key",
            }
        sasl = ca | {
            "brokers": f"127.0.0.1:{self.sasl_port}",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
        }
        if mechanism == "OAUTHBEARER":
            return sasl | {"sasl_token_file": self.token_file}
        password = self.folder / "password"
        password.write_text(PASSWORD + "\n")
        return sasl | {"sasl_username": user, "sasl_password_file": password}

    def admin(self) -> AdminClient:
        """Return a client that may do all."""
        return AdminClient({"bootstrap.servers": self.address})

    def add_user(self) -> None:
        """Let the broker know the user's password for SCRAM."""
        changes = [
            UserScramCredentialUpsertion(
                USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode()
            )
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
        admin = self.admin()  # its answers do not outlive it
        for change in changes:
            for future in admin.alter_user_scram_credentials([change]).values():
                future.result(30)

    def grant(self, rights: list[Right], user: str = USER) -> None:
        """Give a user rights."""
        self.grant_all({user: rights})

    def grant_all(self, rights: Mapping[str, Sequence[Right]]) -> None:
        """Give users rights."""
        bindings = [
            _binding(right, user) for user, mine in rights.items() for right in dict.fromkeys(mine)
        ]
        admin = self.admin()
        for future in admin.create_acls(bindings).values():
            future.result(30)
        time.sleep(SEEN_SECONDS)

    def revoke(self, right: Right) -> None:
        """Take a right from the user."""
        admin = self.admin()
        for future in admin.delete_acls([_filter(right)]).values():
            future.result(30)
        time.sleep(SEEN_SECONDS)


def _binding(right: Right, user: str) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
    operation = {"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(
        right.operation, right.operation.upper()
    )
    return AclBinding(
        RESOURCES[right.resource], right.name, pattern, f"User:{user}", "*",
        AclOperation[operation], AclPermissionType.ALLOW,
    )  # fmt: skip


def _filter(right: Right) -> Any:
    from confluent_kafka.admin import AclBindingFilter

    binding = _binding(right, USER)
    return AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal,
        binding.host, binding.operation, binding.permission_type,
    )  # fmt: skip
