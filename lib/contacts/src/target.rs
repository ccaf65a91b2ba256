//! Targets: the addresses that webhooks may call.
//!
//! An admin who sets a webhook makes this machine call an address of their choice, so by default it must be public. The
//! name is resolved once and the resolved address is called: a name that resolves differently a second time can't
//! redirect the call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

use crate::failure::Failure;

/// Addresses of one name that a call tries.
const ADDRESSES_MAX: usize = 3;

/// Where a webhook's URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) host: Host,
    port: u16,
    pub(crate) is_tls: bool,
    pub(crate) path: String,
}

impl Target {
    /// Parses the URL; plain http is accepted only if private targets are allowed.
    pub(crate) fn of(url: &str, allow_private: bool) -> Result<Target, Failure> {
        let url = Url::parse(url).map_err(|error| Failure::park(format!("the webhook's URL: {error}")))?;
        let is_tls = match url.scheme() {
            "https" => true,
            "http" if allow_private => false,
            _ => return Err(Failure::park("the webhook's URL must begin with https")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Failure::park("the webhook's URL must not carry a user or password"));
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Failure::park("the webhook's URL names no host"));
        };
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        Ok(Target { host: host.to_owned(), port, is_tls, path: path.to_owned() })
    }

    /// Returns the addresses that may be called, at least one.
    pub(crate) async fn addresses(&self, allow_private: bool) -> Result<Vec<SocketAddr>, Failure> {
        let found: Vec<IpAddr> = match &self.host {
            Host::Ipv4(ip) => vec![IpAddr::V4(*ip)],
            Host::Ipv6(ip) => vec![IpAddr::V6(*ip)],
            Host::Domain(name) => tokio::net::lookup_host((name.as_str(), self.port))
                .await
                .map_err(|error| Failure::retry(format!("{name} is not found: {error}")))?
                .map(|address| address.ip())
                .collect(),
        };
        if found.is_empty() {
            return Err(Failure::retry(format!("{} has no address", self.host)));
        }
        let allowed = found.into_iter().filter(|ip| allow_private || is_public(*ip));
        let addresses: Vec<SocketAddr> =
            allowed.take(ADDRESSES_MAX).map(|ip| SocketAddr::new(ip, self.port)).collect();
        if addresses.is_empty() {
            return Err(Failure::park(format!("{} is not on the public Internet", self.host)));
        }
        Ok(addresses)
    }

    /// Returns host and port, the port unless it is the usual one.
    pub fn authority(&self) -> String {
        let is_default = self.port == if self.is_tls { 443 } else { 80 };
        if is_default { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Returns whether the address is public (IANA's special-purpose registries).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// Networks of IPv4 that are private, local or unassigned: first address and length of the prefix.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),       // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // carriers' own
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, clouds' metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, broadcast
];

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let within =
        |(network, length): &(Ipv4Addr, u32)| (ip.to_bits() ^ network.to_bits()) >> (32 - length) == 0;
    !NOT_PUBLIC_V4.iter().any(within)
}

/// Networks within the global unicast block of IPv6 that are not public, or that embed an IPv4 address.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Only 2000::/3 is global unicast: loopback, link-local, unique-local, multicast, mapped and translated IPv4 are not.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let within =
        |(network, length): &(Ipv6Addr, u32)| (ip.to_bits() ^ network.to_bits()) >> (128 - length) == 0;
    ip.segments()[0] >> 13 == 1 && !NOT_PUBLIC_V6.iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_called() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.255.255",
            "172.32.0.0",
            "100.63.0.1",
            "193.0.0.1",
            "2606:4700::1111",
        ] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
        for near in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "fe80::1",
            "fc00::1",
            "fd12:3456::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(near.parse().expect("an address")), "{near}");
        }
    }

    #[tokio::test]
    async fn a_private_target_is_refused_however_it_is_written() {
        for url in [
            "https://127.0.0.1/hook",
            "https://localhost/hook",
            "https://2130706433/hook",
            "https://0x7f.1/hook",
            "https://[::1]/hook",
            "https://[::ffff:127.0.0.1]/hook",
            "https://[::ffff:7f00:1]/hook",
            "https://169.254.169.254/latest/meta-data",
        ] {
            let target = Target::of(url, false).expect("a URL");
            let refused = target.addresses(false).await;
            assert!(matches!(refused, Err(Failure::Park(_))), "{url}: {refused:?}");
            assert!(target.addresses(true).await.is_ok(), "{url} is allowed where private targets are");
        }
        let public = Target::of("https://1.1.1.1/hook", false).expect("a URL");
        assert_eq!(public.addresses(false).await, Ok(vec!["1.1.1.1:443".parse().expect("an address")]));
    }

    #[test]
    fn a_webhook_is_called_by_https_unless_private_targets_are_allowed() {
        for url in [
            "http://example.test/",
            "ftp://example.test/",
            "https://a:b@example.test/",
            "example.test",
            "https://",
        ] {
            assert!(matches!(Target::of(url, false), Err(Failure::Park(_))), "{url}");
        }
        let target = Target::of("http://example.test:8080/a?b=c#d", true).expect("a URL");
        assert_eq!((target.path.as_str(), target.authority().as_str()), ("/a?b=c", "example.test:8080"));
        let target = Target::of("https://Example.test", false).expect("a URL");
        assert_eq!((target.path.as_str(), target.authority().as_str()), ("/", "example.test"));
    }
}
