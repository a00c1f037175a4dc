//! The programs of a cluster: who may call, and with which files and flags they start.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nsm_lab::{Namespace, Program};
use serde_json::{Value, json};

use crate::claims::EXTENDED_RESOURCES;

/// Of an API server without machines.
const PORT: u16 = 6443;

/// Who an agent is in Kubernetes.
pub(super) const AGENT: &str = "system:serviceaccount:nsm-system:nsm-agent";
/// Groups of that account.
pub(super) const GROUPS: [&str; 3] =
    ["system:serviceaccounts", "system:serviceaccounts:nsm-system", "system:authenticated"];

/// Whom an API server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Tests and agents.
    Tests,
    /// Kubelets and controllers as well, and pods under the address of its service.
    Machines,
}

/// The address of the API server's own service, the first of the range.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 232, 0, 1);
/// What the API server's namespace is called by machines.
pub(crate) const UPLINK: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 254);
/// Names of the machines that there can be.
pub(crate) const MACHINES: [&str; 2] = ["node-a", "node-b"];

impl Audience {
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Tests => PORT,
            // The service's, as nothing forwards from one port to another.
            Self::Machines => 443,
        }
    }
}

/// The file of somebody's way to the API server.
pub(super) fn kubeconfig(dir: &Path, user: &str) -> PathBuf {
    dir.join(format!("{user}.conf"))
}

/// A way to the API server with a token.
pub(super) fn config(dir: &Path, address: Ipv4Addr, audience: Audience, name: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{ "name": "lab", "cluster": {
            "server": format!("https://{address}:{}", audience.port()), "certificate-authority": dir.join("tls.crt"),
        } }],
        "users": [{ "name": name, "user": { "token": token } }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": name } }],
    })
}

/// Who may call, with which groups, by the token `NAME-token`.
fn users(audience: Audience) -> Vec<(String, String, String)> {
    let user = |name: &str, user: &str, groups: &str| (name.to_owned(), user.to_owned(), groups.to_owned());
    let mut users = vec![user("admin", "admin", "system:masters"), user("agent", AGENT, &GROUPS.join(","))];
    if audience == Audience::Machines {
        users.push(user("manager", "system:kube-controller-manager", ""));
        users.push(user("scheduler", "system:kube-scheduler", ""));
        users.extend(MACHINES.map(|name| user(name, &format!("system:node:{name}"), "system:nodes")));
    }
    users
}

/// Certificates, keys, tokens and who may read what with them.
pub(super) fn prepare(dir: &Path, audience: Audience) -> anyhow::Result<()> {
    let names = ["127.0.0.1".to_owned(), SERVICE.to_string(), UPLINK.to_string(), "localhost".to_owned()];
    let own = rcgen::generate_simple_self_signed(names)?;
    fs::write(dir.join("tls.crt"), own.cert.pem())?;
    fs::write(dir.join("tls.key"), own.signing_key.serialize_pem())?;
    let accounts = rcgen::KeyPair::generate()?;
    fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules: [{level: Metadata}]\n";
    fs::write(dir.join("audit.yaml"), policy)?;
    let mut tokens = String::new();
    for (at, (name, user, groups)) in users(audience).iter().enumerate() {
        let _ = writeln!(tokens, "{name}-token,{user},{at},\"{groups}\"");
        let address = if MACHINES.contains(&name.as_str()) { SERVICE } else { Ipv4Addr::LOCALHOST };
        let config = config(dir, address, audience, name, &format!("{name}-token"));
        fs::write(kubeconfig(dir, name), config.to_string())?;
    }
    fs::write(dir.join("tokens.csv"), tokens)?;
    Ok(())
}

/// etcd, alone.
pub(super) fn etcd(dir: &Path) -> Command {
    let mut command = command(Path::new("etcd"));
    command.arg("--data-dir").arg(dir.join("etcd")).args([
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=default=http://127.0.0.1:2380",
    ]);
    command
}

/// Starts the API server; it answers later.
pub(super) fn start_apiserver(dir: &Path, namespace: &Namespace, audience: Audience) -> anyhow::Result<Program> {
    let mut command = command(&nsm_peers::tools::tool("kube-apiserver")?);
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    command.args([
        file("tls-cert-file", "tls.crt"),
        file("tls-private-key-file", "tls.key"),
        file("token-auth-file", "tokens.csv"),
        file("service-account-key-file", "accounts.pub"),
        file("service-account-signing-key-file", "accounts.key"),
        file("audit-policy-file", "audit.yaml"),
        file("audit-log-path", "audit.log"),
        file("cert-dir", ""),
        format!("--secure-port={}", audience.port()),
    ]);
    command.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.232.0.0/16",
        "--endpoint-reconciler-type=none",
        // Nobody but the test connects, and it waits for nobody.
        "--shutdown-delay-duration=0s",
        "--audit-log-mode=blocking",
    ]);
    match audience {
        Audience::Tests => command.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--authorization-mode=RBAC",
            // Nobody makes accounts for the pods of the tests.
            "--disable-admission-plugins=ServiceAccount",
        ]),
        Audience::Machines => command.arg(format!("--feature-gates={EXTENDED_RESOURCES}=true")).args([
            "--bind-address=0.0.0.0",
            &format!("--advertise-address={UPLINK}"),
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            // No name server knows a machine by its name.
            "--kubelet-preferred-address-types=InternalIP",
        ]),
    };
    Program::start("kube-apiserver", &mut command, namespace, &dir.join("apiserver.log"))
}

pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/nonexistent");
    command
}
