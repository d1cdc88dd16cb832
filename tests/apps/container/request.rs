//! A request, read within the limits of what a test may send.

use super::*;

pub struct Request {
    pub method: String,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HashMap<String, String>,
    pub keep_alive: bool,
    pub body: Vec<u8>,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

pub fn read_request(
    reader: &mut BufReader<TcpStream>,
    stream: &mut TcpStream,
) -> io::Result<Request> {
    let mut head = reader.by_ref().take(HEAD_LIMIT);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(bad("request line"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query
            .map(|(name, value)| (unescape(name), unescape(value)))
            .collect(),
        headers: HashMap::new(),
        keep_alive: version == "HTTP/1.1",
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("head ends early or is too long"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(wish) = request.headers.get("connection") {
        request.keep_alive &= !wish.eq_ignore_ascii_case("close");
    }
    if request
        .headers
        .get("expect")
        .is_some_and(|wish| wish.eq_ignore_ascii_case("100-continue"))
    {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = read_body(reader, &request.headers)?;
    Ok(request)
}

fn read_body(
    reader: &mut BufReader<TcpStream>,
    headers: &HashMap<String, String>,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if !headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding.contains("chunked"))
    {
        let length: u64 = headers
            .get("content-length")
            .map_or(Ok(0), |text| text.parse())
            .map_err(io::Error::other)?;
        if length > BODY_LIMIT {
            return Err(bad("body too large"));
        }
        body.resize(length as usize, 0);
        reader.read_exact(&mut body)?;
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.by_ref().take(1024).read_line(&mut line)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
        if body.len() as u64 + size > BODY_LIMIT {
            return Err(bad("body too large"));
        }
        let start = body.len();
        body.resize(start + size as usize, 0);
        reader.read_exact(&mut body[start..])?;
        // The line end after a chunk, or the trailers after the last one.
        loop {
            line.clear();
            reader.by_ref().take(HEAD_LIMIT).read_line(&mut line)?;
            if size > 0 || line.trim().is_empty() {
                break;
            }
        }
        if size == 0 {
            return Ok(body);
        }
    }
}
