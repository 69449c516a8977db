//! A node's certificate is replaced while clients are there: they stay, and who comes next is shown the new one.

use std::fs;
use std::os::unix::fs::symlink;

use fanwire_server::settings::TlsSettings;
use rustls::version::TLS13;
use serde_json::json;

use crate::common::{Authority, CertificateFiles, Client, RawSocket, TestGateway, eventually, settings};

const COMPLETE: &str = "result=\"complete\"";
const FAILED: &str = "result=\"failed\"";

async fn reloads(gateway: &TestGateway, result: &str) -> f64 {
    gateway.metric_of("fanwire_tls_certificate_reloads_total", result).await
}

/// The certificate that a new client is shown.
async fn shown(gateway: &TestGateway, authority: &Authority) -> Vec<u8> {
    let trust = authority.trust(&[&TLS13]);
    let mut socket = RawSocket::open(gateway.address).await.encrypted(&trust).await;
    socket.tls().get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_new_certificate_is_for_new_clients() {
    let authority = Authority::new();
    let files = CertificateFiles::new(&authority.issue());
    let mut settings = settings(3);
    settings.tls = Some(files.settings());
    let gateway = TestGateway::start(settings).await;
    let trust = authority.trust(&[&TLS13]);
    let socket = RawSocket::open(gateway.address).await.encrypted(&trust).await;
    let mut early = Client::connect_over(socket, json!({})).await;
    early.subscribe("a").await;
    let first = shown(&gateway, &authority).await;

    files.write(&authority.issue());
    eventually("the new certificate is shown", async || shown(&gateway, &authority).await != first).await;
    assert_eq!((reloads(&gateway, COMPLETE).await, reloads(&gateway, FAILED).await), (1.0, 0.0));
    let second = shown(&gateway, &authority).await;

    // Files that cannot be used, or are gone, change nothing and are counted.
    let TlsSettings { key_file, certificate_file, .. } = files.settings();
    fs::write(&key_file, "no key").unwrap();
    eventually("the failure is counted", async || reloads(&gateway, FAILED).await == 1.0).await;
    fs::write(&key_file, authority.issue().key).unwrap();
    eventually("the failure is counted", async || reloads(&gateway, FAILED).await == 2.0).await;
    fs::remove_file(&certificate_file).unwrap();
    eventually("the failure is counted", async || reloads(&gateway, FAILED).await == 3.0).await;
    assert_eq!(reloads(&gateway, COMPLETE).await, 1.0);
    assert_eq!(shown(&gateway, &authority).await, second);

    files.write(&authority.issue());
    eventually("the third certificate is shown", async || shown(&gateway, &authority).await != second).await;
    assert_eq!(reloads(&gateway, COMPLETE).await, 2.0);

    // Who was there all the time noticed nothing.
    early.publish("a", json!("still here")).await;
    assert_eq!(early.publication().await.1["data"], "still here");
}

#[tokio::test]
async fn a_link_that_is_turned_is_noticed() {
    let authority = Authority::new();
    let (before, after) =
        (CertificateFiles::new(&authority.issue()), CertificateFiles::new(&authority.issue()));
    // As Kubernetes mounts a secret: the files lie behind a link to a folder, which is replaced as a whole.
    let mount = CertificateFiles::new(&authority.issue());
    let TlsSettings { certificate_file, key_file, .. } = mount.settings();
    let folder = certificate_file.parent().unwrap();
    let data = folder.join("..data");
    let turn = |to: &CertificateFiles| {
        let next = folder.join("..data_tmp");
        symlink(to.settings().certificate_file.parent().unwrap(), &next).unwrap();
        fs::rename(&next, &data).unwrap();
    };
    turn(&before);
    for file in [&certificate_file, &key_file] {
        fs::remove_file(file).unwrap();
        symlink(data.join(file.file_name().unwrap()), file).unwrap();
    }
    let mut settings = settings(1);
    settings.tls = Some(mount.settings());
    let gateway = TestGateway::start(settings).await;
    let first = shown(&gateway, &authority).await;
    turn(&after);
    eventually("the new certificate is shown", async || shown(&gateway, &authority).await != first).await;
    assert_eq!((reloads(&gateway, COMPLETE).await, reloads(&gateway, FAILED).await), (1.0, 0.0));
}

#[tokio::test]
async fn files_are_read_when_it_is_asked_for() {
    let authority = Authority::new();
    let files = CertificateFiles::new(&authority.issue());
    let mut settings = settings(1);
    settings.tls = Some(TlsSettings { reload_interval: None, ..files.settings() });
    let gateway = TestGateway::start(settings).await;
    let first = shown(&gateway, &authority).await;
    files.write(&authority.issue());
    gateway.reload_certificate();
    eventually("the new certificate is shown", async || shown(&gateway, &authority).await != first).await;
}

#[tokio::test]
async fn a_node_does_not_start_with_files_that_cannot_be_used() {
    let authority = Authority::new();
    let files = CertificateFiles::new(&authority.issue());
    let mut settings = settings(1);
    settings.tls = Some(files.settings());
    fs::write(files.settings().key_file, authority.issue().key).unwrap();
    let error = fanwire_server::start(settings).unwrap_err().to_string();
    assert!(error.contains("server.tls.key_file: is not the key of the certificate"), "{error}");
}
