//! The room `oauth` against a real `OpenID` provider.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokenwatch::http::Http;
use tokenwatch::oauth::{Class, Client, Endpoints, OauthError, Tokens};
use tokenwatch::secret::Secret;

use crate::oidc_server::{AUDIENCE, DESKTOP, KEY_ID, NATIVE, Oidc, SCOPES, SERVICE, USER};

fn client(oidc: &Oidc, id: &str, secret: Option<&str>) -> Client {
    Client {
        endpoints: Endpoints {
            token: oidc.token_endpoint(),
            authorization: Some(oidc.authorization_endpoint()),
            device: Some(oidc.device_endpoint()),
            authorization_extra: Vec::new(),
            redirect_by_name: false,
        },
        client_id: id.into(),
        client_secret: secret.map(|secret| Secret::new(secret.into())),
        scopes: SCOPES.map(String::from).into(),
    }
}

fn http() -> Http {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Http::new(tls, None).unwrap()
}

/// What stands in an access token, when its signature is good.
fn claims(oidc: &Oidc, tokens: &Tokens) -> Value {
    let (signed, signature) = tokens.access.expose().rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let key = SubjectPublicKeyInfoDer::from_pem_slice(oidc.public_key().as_bytes()).unwrap();
    // Behind 24 bytes, which say that it is RSA, stands the key itself.
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &key[24..])
        .verify(signed.as_bytes(), &signature)
        .unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let read = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let header: Value = read(header);
    assert_eq!(
        header,
        json!({ "alg": "RS256", "typ": "JWT", "kid": KEY_ID })
    );
    read(payload)
}

/// A sign-in waits for minutes for a person who, in a test that fails, does not come.
async fn soon(
    signing_in: impl Future<Output = Result<Tokens, OauthError>>,
) -> Result<Tokens, OauthError> {
    let ended = tokio::time::timeout(Duration::from_secs(30), signing_in).await;
    ended.expect("the sign-in ends")
}

/// Signs in by device code; the person comes when the device has asked once.
async fn by_device(oidc: &Arc<Oidc>, approves: bool) -> Result<Tokens, OauthError> {
    let (mut person, there) = (None, Arc::clone(oidc));
    let (client, http) = (client(oidc, NATIVE, None), http());
    let signing_in = client.sign_in_by_device(&http, |prompt| {
        person = Some(thread::spawn(move || {
            let start = Instant::now();
            while there.asked("/token") == 0 {
                assert!(start.elapsed() < Duration::from_secs(20), "nobody asks");
                thread::sleep(Duration::from_millis(20));
            }
            let page = there.device_page(&prompt.user_code);
            assert_eq!(Some(&page), prompt.verification_uri_complete.as_ref());
            if approves {
                Oidc::approve(&page)
            } else {
                Oidc::deny(&page)
            }
        }));
    });
    let result = soon(signing_in).await;
    let page = person.unwrap().join().unwrap();
    let words = if approves { "Success" } else { "interrupted" };
    assert!(page.contains(words), "{page}");
    result
}

async fn by_browser(client: &Client, approves: bool) -> Result<Tokens, OauthError> {
    let (mut person, http) = (None, http());
    let signing_in = client.sign_in_by_browser(&http, None, |prompt| {
        person = Some(thread::spawn(move || {
            if approves {
                Oidc::approve(&prompt.url)
            } else {
                Oidc::deny(&prompt.url)
            }
        }));
    });
    let result = soon(signing_in).await;
    let page = person.unwrap().join().unwrap();
    assert!(page.contains("look at the terminal"), "{page}");
    result
}

#[tokio::test]
async fn a_device_signs_in_and_every_refresh_token_is_good_for_once() {
    let oidc = Arc::new(Oidc::start());
    let (client, http) = (client(&oidc, NATIVE, None), http());
    let tokens = by_device(&oidc, true).await.unwrap();
    assert!(oidc.asked("/token") >= 2, "it was asked before, and after");
    let claimed = claims(&oidc, &tokens);
    assert_eq!(
        (&claimed["sub"], &claimed["email"]),
        (&USER.into(), &USER.into())
    );
    assert_eq!(
        (&claimed["aud"], &claimed["scope"]),
        (&AUDIENCE.into(), &"imap".into())
    );

    let first = tokens.refresh.unwrap();
    let renewed = client.refresh(&http, &first).await.unwrap();
    let second = renewed.refresh.clone().unwrap();
    assert!(first != second && renewed.access != tokens.access);
    let third = client
        .refresh(&http, &second)
        .await
        .unwrap()
        .refresh
        .unwrap();

    // A refresh token that comes a second time was stolen, as the provider must see it: it takes
    // the whole family back.
    for dead in [&first, &third] {
        let error = client.refresh(&http, dead).await.unwrap_err();
        assert!(
            matches!(&error, OauthError::SignInAgain(code) if code.to_string() == "invalid_grant"),
            "{error}"
        );
        assert_eq!(error.class(), Class::SignIn);
    }
}

#[tokio::test]
async fn a_device_hears_of_a_refusal_and_of_a_code_that_ran_out() {
    let oidc = Arc::new(Oidc::start());
    let error = by_device(&oidc, false).await.unwrap_err();
    assert!(matches!(error, OauthError::Denied), "{error}");

    oidc.device_code_seconds(1);
    let (client, http) = (client(&oidc, NATIVE, None), http());
    let error = client.sign_in_by_device(&http, |_| ()).await.unwrap_err();
    assert!(matches!(error, OauthError::Expired), "{error}");
}

#[tokio::test]
async fn a_browser_signs_in_with_and_without_a_secret() {
    let oidc = Oidc::start();
    let mut public = client(&oidc, NATIVE, None);
    let mut desktop = client(&oidc, DESKTOP[0], Some(DESKTOP[1]));
    for by_name in [false, true] {
        for client in [&mut public, &mut desktop] {
            client.endpoints.redirect_by_name = by_name;
            let tokens = by_browser(client, true).await.unwrap();
            assert_eq!(claims(&oidc, &tokens)["email"], USER);
            let refresh = tokens.refresh.unwrap();
            client.refresh(&http(), &refresh).await.unwrap();
        }
    }
    let error = by_browser(&public, false).await.unwrap_err();
    assert!(matches!(error, OauthError::Denied), "{error}");
    public.scopes.push("unheard-of".into());
    public.client_id = "nobody".into();
    // The provider shows the error to the browser and leads it nowhere.
    let http = http();
    let signing_in = public.sign_in_by_browser(&http, None, |prompt| {
        let page = Oidc::approve(&prompt.url);
        assert!(page.contains("invalid_client"), "{page}");
    });
    let waited = tokio::time::timeout(Duration::from_millis(300), signing_in).await;
    assert!(waited.is_err(), "nothing came back");
}

#[tokio::test]
async fn a_service_gets_tokens_of_its_own() {
    let oidc = Oidc::start();
    oidc.access_token_seconds(7);
    let http = http();
    let mut service = client(&oidc, SERVICE[0], Some(SERVICE[1]));
    service.scopes = vec!["imap".into()];
    let tokens = service.client_credentials(&http).await.unwrap();
    assert_eq!(tokens.expires_in, Some(Duration::from_secs(7)));
    assert!(tokens.refresh.is_none());
    let claimed = claims(&oidc, &tokens);
    assert_eq!(
        claimed["exp"].as_i64().unwrap() - claimed["iat"].as_i64().unwrap(),
        7
    );
    assert_eq!(claimed["iss"], oidc.issuer());

    for (id, secret) in [
        (SERVICE[0], Some("wrong-secret")),
        (SERVICE[0], None),
        ("nobody", None),
    ] {
        let error = client(&oidc, id, secret).client_credentials(&http).await;
        let error = error.unwrap_err();
        assert!(
            matches!(&error, OauthError::Refused(code) if code.to_string() == "invalid_client"),
            "{error}"
        );
        assert_eq!(error.class(), Class::Person);
    }
    let error = client(&oidc, NATIVE, None).client_credentials(&http).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the provider refuses this application (invalid_request)"
    );
}

#[tokio::test]
async fn a_provider_out_of_order_is_no_refusal_and_tokens_can_be_taken_back() {
    let oidc = Oidc::start();
    let (client, http) = (client(&oidc, NATIVE, None), http());
    let refresh = by_browser(&client, true).await.unwrap().refresh.unwrap();
    for status in [500, 503, 429] {
        oidc.fail_with(status);
        let error = client.refresh(&http, &refresh).await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{error}");
    }
    oidc.fail_with(0);
    let refresh = client
        .refresh(&http, &refresh)
        .await
        .unwrap()
        .refresh
        .unwrap();
    oidc.revoke_refresh_tokens();
    let error = client.refresh(&http, &refresh).await.unwrap_err();
    assert_eq!(error.class(), Class::SignIn, "{error}");
}
