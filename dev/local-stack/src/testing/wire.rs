//! Wire: Kafka's protocol by hand, for what no client library does.
//!
//! It writes batches that the broker takes and other clients can't read, makes and ends logins, and grants rights. A
//! few requests over one plain connection; each answers an error as the broker's number.

use anyhow::{Context, Result, bail, ensure};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than any of these answers has.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const PRODUCE: i16 = 0;
const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const ALTER_LOGINS: i16 = 51;
/// The brokers' least.
const SCRAM_ITERATIONS: u32 = 4096;

/// A plain connection to one broker.
pub struct Wire {
    stream: TcpStream,
}

/// A right: who may do what with which resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Such as `User:ledger-projector`.
    pub principal: String,
    /// `topic`, `group`, `cluster` or `transactional-id`.
    pub resource: String,
    pub name: String,
    /// As Kafka's own tool names it, such as `DescribeConfigs`.
    pub operation: String,
}

impl Wire {
    /// Connects to the first of these brokers.
    pub async fn connect(brokers: &str) -> Result<Wire> {
        let first = brokers.split(',').next().unwrap_or_default();
        Ok(Wire { stream: TcpStream::connect(first).await.with_context(|| format!("no broker at {first}"))? })
    }

    /// Appends a batch as it is and returns the offset of its first record.
    pub async fn produce(&mut self, topic: &str, partition: i32, batch: &[u8]) -> Result<i64> {
        let mut body = Bytes::default();
        body.i16(-1).i16(-1).i32(10_000); // No transaction, all replicas, 10 s.
        body.i32(1).text(topic).i32(1).i32(partition).bytes(batch);
        let answer = self.ask(PRODUCE, 7, &body.0).await?;
        let mut answer = Answer(&answer);
        answer.skip(4)?; // One topic.
        let name = answer.i16()?;
        answer.skip(usize::try_from(name)?)?;
        answer.skip(4 + 4)?; // One partition and its number.
        let error = answer.i16()?;
        ensure!(error == 0, "the broker refuses the batch: error {error}");
        answer.i64()
    }

    /// Grants rights.
    pub async fn create_acls(&mut self, acls: &[Acl]) -> Result<()> {
        let mut body = Bytes::default();
        body.i32(i32::try_from(acls.len())?);
        for acl in acls {
            body.i8(acl.resource_type()?).text(&acl.name).i8(3); // The name as it is.
            body.text(&acl.principal).text("*").i8(acl.operation_code()?).i8(3); // From anywhere, allowed.
        }
        let answer = self.ask(CREATE_ACLS, 1, &body.0).await?;
        let mut answer = Answer(&answer);
        answer.skip(4)?;
        for _ in 0..answer.i32()? {
            let error = answer.i16()?;
            ensure!(error == 0, "a right is not granted: error {error}");
            let message = answer.i16()?;
            answer.skip(usize::try_from(message.max(0))?)?;
        }
        Ok(())
    }

    /// Takes all rights of a principal away.
    pub async fn delete_acls(&mut self, principal: &str) -> Result<()> {
        let mut body = Bytes::default();
        // One filter: any resource, name, pattern, host, operation and permission.
        body.i32(1).i8(1).i16(-1).i8(1).text(principal).i16(-1).i8(1).i8(1);
        let answer = self.ask(DELETE_ACLS, 1, &body.0).await?;
        let mut answer = Answer(&answer);
        answer.skip(4 + 4)?;
        let error = answer.i16()?;
        ensure!(error == 0, "rights are not taken away: error {error}");
        Ok(())
    }

    /// Sets the password of a login for SCRAM, with either hash; without one the login ends.
    pub async fn set_login(&mut self, name: &str, password: Option<&str>) -> Result<()> {
        let salt = b"the salt of these tests";
        // The broker takes one hash of a name at a time.
        for mechanism in [1, 2] {
            let mut body = Bytes::default();
            match password {
                None => {
                    body.i8(2).compact(name.as_bytes()).i8(mechanism).i8(0).i8(1);
                }
                Some(password) => {
                    let salted = match mechanism {
                        1 => salted::<Hmac<Sha256>>(password, salt)?,
                        _ => salted::<Hmac<Sha512>>(password, salt)?,
                    };
                    body.i8(1).i8(2).compact(name.as_bytes()).i8(mechanism);
                    body.i32(i32::try_from(SCRAM_ITERATIONS)?).compact(salt).compact(&salted).i8(0);
                }
            }
            body.i8(0);
            let answer = self.ask(ALTER_LOGINS, 0, &body.0).await?;
            let mut answer = Answer(&answer);
            answer.skip(1 + 4 + 1)?; // Tags, a pause, and one result.
            let length = answer.i8()?;
            answer.skip(usize::try_from(length - 1)?)?;
            let error = answer.i16()?;
            ensure!(error == 0, "a login is not changed: error {error}");
        }
        Ok(())
    }

    async fn ask(&mut self, api: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
        let mut request = Bytes::default();
        request.i16(api).i16(version).i32(1).text("wire");
        if api == ALTER_LOGINS {
            request.i8(0); // A header of the flexible kind has tags.
        }
        request.0.extend(body);
        let mut framed = Bytes::default();
        framed.bytes(&request.0);
        self.stream.write_all(&framed.0).await?;
        let length = usize::try_from(self.stream.read_i32().await?)?;
        ensure!((4..=ANSWER_BYTES_MAX).contains(&length), "an answer of {length} bytes");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        Ok(answer.split_off(4))
    }
}

impl Acl {
    fn resource_type(&self) -> Result<i8> {
        Ok(match self.resource.as_str() {
            "topic" => 2,
            "group" => 3,
            "cluster" => 4,
            "transactional-id" => 5,
            other => bail!("no resource is called {other}"),
        })
    }

    fn operation_code(&self) -> Result<i8> {
        Ok(match self.operation.as_str() {
            "Read" => 3,
            "Write" => 4,
            "Create" => 5,
            "Describe" => 8,
            "DescribeConfigs" => 10,
            other => bail!("no operation is called {other}"),
        })
    }
}

/// Returns the salted password of SCRAM: PBKDF2 with one block.
fn salted<M: Mac + KeyInit>(password: &str, salt: &[u8]) -> Result<Vec<u8>> {
    let hash = |text: &[u8]| -> Result<Vec<u8>> {
        let mut mac = <M as KeyInit>::new_from_slice(password.as_bytes()).context("any key fits")?;
        mac.update(text);
        Ok(mac.finalize().into_bytes().to_vec())
    };
    let mut last = hash(&[salt, &1_u32.to_be_bytes()].concat())?;
    let mut all = last.clone();
    for _ in 1..SCRAM_ITERATIONS {
        last = hash(&last)?;
        all.iter_mut().zip(&last).for_each(|(all, last)| *all ^= last);
    }
    Ok(all)
}

/// A record of a batch by hand.
#[derive(Debug, Clone, Default)]
pub struct RawRecord<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a [u8], &'a [u8])>,
}

/// How the records of a batch by hand are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    Plain,
    /// LZ4 with a wrong checksum over the content: brokers don't look at it, librdkafka does.
    Lz4OfWrongChecksum,
    /// GZIP in two parts, the second with the rest: brokers read both, librdkafka only the first, and says nothing.
    GzipInTwoParts,
}

/// Returns a batch that a broker takes.
pub fn batch(packed: Packed, records: &[RawRecord<'_>]) -> Vec<u8> {
    let mut plain = Bytes::default();
    for (delta, record) in (0_i64..).zip(records) {
        let mut one = Bytes::default();
        one.i8(0).varint(0).varint(delta).variable(record.key).variable(record.value);
        one.varint(long(record.headers.len()));
        for (name, value) in &record.headers {
            one.variable(Some(name)).variable(Some(value));
        }
        plain.varint(long(one.0.len()));
        plain.0.extend(one.0);
    }
    let (codec, payload) = match packed {
        Packed::Plain => (0, plain.0),
        Packed::Lz4OfWrongChecksum => (3, lz4_of_wrong_checksum(&plain.0)),
        Packed::GzipInTwoParts => {
            let (first, rest) = plain.0.split_at(plain.0.len() / 2);
            (1, [gzip(first), gzip(rest)].concat())
        }
    };
    let count = i32::try_from(records.len()).expect("few");
    let mut summed = Bytes::default();
    summed.i16(codec).i32(count - 1).i64(0).i64(0).i64(-1).i16(-1).i32(-1).i32(count);
    summed.0.extend(payload);
    let mut batch = Bytes::default();
    let length = i32::try_from(4 + 1 + 4 + summed.0.len()).expect("small");
    batch.i64(0).i32(length).i32(-1).i8(2).u32(crc32c(&summed.0));
    batch.0.extend(summed.0);
    batch.0
}

fn long(length: usize) -> i64 {
    i64::try_from(length).expect("a slice has at most i64::MAX bytes")
}

/// Returns one LZ4 frame with one block that is not compressed.
fn lz4_of_wrong_checksum(plain: &[u8]) -> Vec<u8> {
    // Version 1, independent blocks, a checksum over the content; blocks of at most 64 KiB.
    let descriptor = [0x64, 0x40];
    let [_, _, check, _] = xxh32(&descriptor).to_be_bytes();
    let mut frame = 0x184d_2204_u32.to_le_bytes().to_vec();
    frame.extend(descriptor);
    frame.push(check);
    frame.extend((0x8000_0000 | u32::try_from(plain.len()).expect("one block")).to_le_bytes());
    frame.extend(plain);
    frame.extend(0_u32.to_le_bytes());
    frame.extend((!xxh32(plain)).to_le_bytes());
    frame
}

/// Returns the xxHash of less than 16 bytes; of more, some number that isn't it.
fn xxh32(bytes: &[u8]) -> u32 {
    let mut hash = 374_761_393_u32.wrapping_add(u32::try_from(bytes.len()).expect("short"));
    for byte in bytes {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(374_761_393)).rotate_left(11);
        hash = hash.wrapping_mul(2_654_435_761);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(2_246_822_519);
    hash = (hash ^ (hash >> 13)).wrapping_mul(3_266_489_917);
    hash ^ (hash >> 16)
}

/// Returns a GZIP member with one block that is not compressed.
fn gzip(plain: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plain.len()).expect("one block");
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    member.extend(length.to_le_bytes());
    member.extend((!length).to_le_bytes());
    member.extend(plain);
    member.extend(crc(plain, 0xedb8_8320).to_le_bytes());
    member.extend(u32::from(length).to_le_bytes());
    member
}

/// Returns the checksum of Kafka's batches, CRC-32C.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc(bytes, 0x82f6_3b78)
}

/// Returns a CRC-32 by its reversed polynomial: Kafka's is Castagnoli's, GZIP's the usual one.
fn crc(bytes: &[u8], polynomial: u32) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ polynomial } else { crc >> 1 },
        )
    })
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn i8(&mut self, value: i8) -> &mut Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn i16(&mut self, value: i16) -> &mut Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn i32(&mut self, value: i32) -> &mut Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn i64(&mut self, value: i64) -> &mut Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Bytes {
        self.i16(i16::try_from(text.len()).expect("a short text"));
        self.0.extend(text.as_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Bytes {
        self.i32(i32::try_from(bytes.len()).expect("small"));
        self.0.extend(bytes);
        self
    }

    /// Bytes of the flexible kind, shorter than 127.
    fn compact(&mut self, bytes: &[u8]) -> &mut Bytes {
        self.i8(i8::try_from(bytes.len() + 1).expect("short"));
        self.0.extend(bytes);
        self
    }

    fn variable(&mut self, bytes: Option<&[u8]>) -> &mut Bytes {
        let Some(bytes) = bytes else { return self.varint(-1) };
        self.varint(long(bytes.len()));
        self.0.extend(bytes);
        self
    }

    fn varint(&mut self, value: i64) -> &mut Bytes {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.0.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.0.push(rest.to_le_bytes()[0]);
        self
    }
}

struct Answer<'a>(&'a [u8]);

impl Answer<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().context("the broker's answer is too short")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.get(bytes..).context("the broker's answer is too short")?;
        Ok(())
    }

    fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.take()?))
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_known_ones() {
        assert_eq!(crc(b"123456789", 0x82f6_3b78), 0xe306_9283);
        assert_eq!(crc(b"123456789", 0xedb8_8320), 0xcbf4_3926);
        assert_eq!(xxh32(b""), 0x02cc_5d05);
        assert_eq!(xxh32(b"a"), 0x550d_7456);
    }

    #[test]
    fn numbers_of_any_length_are_written_as_kafka_reads_them() {
        let check =
            |value: i64, expected: &[u8]| assert_eq!(Bytes::default().varint(value).0, expected, "{value}");
        check(0, &[0]);
        check(-1, &[1]);
        check(63, &[126]);
        check(64, &[0x80, 1]);
        check(300, &[0xd8, 4]);
    }
}
