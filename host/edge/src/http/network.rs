//! Networks of IP addresses, in which an operator lists trusted proxies.

use std::{fmt, net::IpAddr, str::FromStr};

/// Addresses of trusted proxies: a network in CIDR notation, or one address.
///
/// ```
/// use tidegate_edge::Network;
///
/// let network: Network = "10.0.0.0/8".parse().unwrap();
/// assert!(network.contains("10.1.2.3".parse().unwrap()) && !network.contains("11.0.0.1".parse().unwrap()));
/// assert!("10.1.2.3/8".parse::<Network>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Number of significant bits in the address.
    bits: u32,
}

impl Network {
    /// Returns true if the network contains the address. An IPv4-mapped address counts as the IPv4
    /// address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(given)) => {
                is_same_prefix(own.to_bits().into(), given.to_bits().into(), 32 - self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(given)) => {
                is_same_prefix(own.to_bits(), given.to_bits(), 128 - self.bits)
            }
            _ => false,
        }
    }
}

/// Returns true if two addresses are equal without the last `free` bits.
fn is_same_prefix(one: u128, other: u128, free: u32) -> bool {
    (one ^ other).checked_shr(free).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let advice = "write an address, or a network as in \"10.0.0.0/8\" or \"fd00::/8\"";
        let bad = || format!("{text:?} is no network: {advice}");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().map_err(|_| bad())?;
        let max = if given.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(max);
        let address = given.to_canonical();
        // A network of mapped addresses has at least the 96 bits that all of them share.
        let (max, bits) = if address.is_ipv4() && !given.is_ipv4() {
            (32, bits.checked_sub(96).ok_or_else(bad)?)
        } else {
            (max, bits)
        };
        let network = Network { address, bits };
        let is_aligned = match address {
            _ if bits > max => return Err(bad()),
            IpAddr::V4(v4) => v4.to_bits().checked_shl(bits).unwrap_or(0) == 0,
            IpAddr::V6(v6) => v6.to_bits().checked_shl(bits).unwrap_or(0) == 0,
        };
        if is_aligned {
            Ok(network)
        } else {
            Err(format!(
                "{text:?} has bits after its first {bits}: {advice}"
            ))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_share_its_first_bits() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.0.0.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "8.8.8.8", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1", "::1", true),
        ];
        for (network, address, expected) in cases {
            assert_eq!(
                network
                    .parse::<Network>()
                    .unwrap()
                    .contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.1.0.0/8",
            "::1/64",
            "::/129",
            "example.org",
            "10.0.0",
            "::ffff:10.0.0.0/80",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }
}
