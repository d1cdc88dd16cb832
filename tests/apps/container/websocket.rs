//! The echo at `/ws` (RFC 6455), and the hash and the encoding that its handshake asks for.

use super::*;

/// Echoes text and binary frames as they come, until either side closes.
pub fn websocket(
    app: &App,
    request: &Request,
    mut reader: BufReader<TcpStream>,
    mut stream: TcpStream,
    in_flight: InFlight,
) -> io::Result<()> {
    let key = &request.headers["sec-websocket-key"];
    let accept = base64(&sha1(
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    ));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-Release: {}\r\nX-Version: {}\r\n\r\n",
        app.release, app.version
    );
    stream.write_all(head.as_bytes())?;
    let id = NEXT_WEBSOCKET.fetch_add(1, Ordering::SeqCst);
    websockets()
        .get_or_insert_default()
        .insert(id, stream.try_clone()?);
    // Not a request in flight any more: a stop closes it with 1001 instead of waiting.
    drop(in_flight);
    let ended = frames(&mut reader, &mut stream);
    websockets().get_or_insert_default().remove(&id);
    ended
}

fn frames(reader: &mut BufReader<TcpStream>, stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let mut extended = [0; 8];
        let size = match head[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        reader.read_exact(&mut extended[8 - size..])?;
        let length = if size == 0 {
            u64::from(head[1] & 0x7F)
        } else {
            u64::from_be_bytes(extended)
        };
        if head[1] & 0x80 == 0 || length > FRAME_LIMIT {
            return stream.write_all(&[0x88, 2, 0x03, 0xEA]); // 1002, protocol error
        }
        let mut mask = [0; 4];
        reader.read_exact(&mut mask)?;
        let mut data = vec![0; length as usize];
        reader.read_exact(&mut data)?;
        data.iter_mut()
            .enumerate()
            .for_each(|(i, byte)| *byte ^= mask[i % 4]);
        let first = match head[0] & 0x0F {
            0x9 => 0x8A,
            0xA => continue,
            _ => head[0],
        };
        let mut frame = vec![first];
        match data.len() {
            n @ 0..126 => frame.push(n as u8),
            n @ 126..65536 => {
                frame.push(126);
                frame.extend((n as u16).to_be_bytes());
            }
            n => {
                frame.push(127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        frame.extend(data);
        stream.write_all(&frame)?;
        if first & 0x0F == 0x8 {
            return Ok(());
        }
    }
}

/// FIPS 180-4, only for the handshake of RFC 6455.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [
        0x6745_2301,
        0xEFCD_AB89,
        0x98BA_DCFE,
        0x1032_5476,
        0xC3D2_E1F0,
    ];
    for block in padded.as_chunks::<64>().0 {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mixed, constant) = match i {
                0..20 => ((b & c) | (!b & d), 0x5A82_7999),
                20..40 => (b ^ c ^ d, 0x6ED9_EBA1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC),
                _ => (b ^ c ^ d, 0xCA62_C1D6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let group = part
            .iter()
            .fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - part.len()));
        for i in 0..4 {
            let letter = ALPHABET[(group >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= part.len() { letter as char } else { '=' });
        }
    }
    out
}
