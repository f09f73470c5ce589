// Prints a room's events, one line of JSON each; comes back by cursor after a loss, and with --cursor-file PATH after a restart.
package main
import ("bytes"; "cmp"; "crypto/rand"; "encoding/base64"; bits "encoding/binary"; "encoding/json"; "flag"; "fmt"; "io"; "log"; "net/http"; "os"; "strconv"; "time")
type part struct { Room, Cursor, Recovery string; Code any; Temporary bool; PingSeconds, RetryAfterMs float64; Rooms []part; Error *part; Event json.RawMessage }
type message struct { Id uint32; Ping *struct{}; Connected, Event, CaughtUp, Unsubscribed, Disconnect part; Error *part } // what matters here of all there are
var room, cursor, file, silence = cmp.Or(os.Getenv("ROOMCAST_ROOM"), "bookings"), "", flag.String("cursor-file", "", "go on from here"), 15 * time.Second
var seen, held, order = map[string]bool{}, map[string]string{}, []string{} // events by source and id, oldest first in order; values by state key
func must(err error) { if err != nil { panic(err) } }
func keep(at string) { if cursor = at; *file != "" { must(os.WriteFile(*file+".new", []byte(at), 0o600)); must(os.Rename(*file+".new", *file)) } }
func random(size int) []byte { data := make([]byte, size); rand.Read(data); return data }
func read(from io.Reader, size int) []byte { data := make([]byte, min(size, 1<<24)); _, err := io.ReadFull(from, data); must(err); return data } // ≤ 16 MiB
func send(to io.Writer, opcode byte, payload []byte) {
	frame, mask := []byte{0x80 | opcode, 0x80 | byte(len(payload))}, random(4)
	if len(payload) > 125 { frame = bits.BigEndian.AppendUint16([]byte{0x80 | opcode, 0xFE}, uint16(len(payload))) }
	for i, b := range payload { payload[i] = b ^ mask[i%4] }
	to.Write(append(append(frame, mask...), payload...))
}
func deliver(event json.RawMessage) {
	var about struct { Id, Source, StateKey string }; json.Unmarshal(event, &about)
	who, line := about.Source+"\n"+about.Id, bytes.Buffer{}
	if about.Id == "" || about.StateKey == "" && seen[who] || held[about.StateKey] == who { return }
	if about.StateKey != "" { held[about.StateKey] = who } else { seen[who], order = true, append(order, who) }
	if len(order) > 4096 { delete(seen, order[0]); order = order[1:] }
	must(json.Compact(&line, event)); fmt.Println(line.String())
}
func session() (code int, hint float64) { // one connection, from the upgrade to its end: close code, hint in milliseconds
	defer func() { if err := recover(); err != nil { log.Println("cut off:", err); code, hint = 1006, 0 } }()
	request, err := http.NewRequest("GET", os.Getenv("ROOMCAST_GATEWAY")+"/v1/ws", nil); must(err)
	request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Protocol": {"roomcast.v1.json"}, "Sec-Websocket-Key": {base64.StdEncoding.EncodeToString(random(16))}}
	answer, err := (&http.Transport{ResponseHeaderTimeout: silence}).RoundTrip(request); must(err); defer answer.Body.Close()
	hint, _ = strconv.ParseFloat(answer.Header.Get("Retry-After"), 64); hint *= 1000
	if s := answer.StatusCode; s != 101 { return map[bool]int{true: 4500, false: 1006}[s == 400 || s == 401 || s == 403 || s == 404], hint }
	stream, whole, at := answer.Body.(io.ReadWriter), []byte{}, map[bool]string{true: fmt.Sprintf(`,"cursor":%q`, cursor)}[cursor != ""]
	send(stream, 1, fmt.Appendf(nil, `{"id":1,"connect":{"token":%q,"rooms":[{"room":%q%s}]}}`, os.Getenv("ROOMCAST_VIEWER_TOKEN"), room, at))
	for watch := time.AfterFunc(silence, func() { answer.Body.Close() }); ; watch.Reset(silence) {
		head := read(stream, 2); opcode, size := head[0]&15, int(head[1])
		if size > 125 { size = int(bits.BigEndian.Uint64(append(make([]byte, 6*(127-size)), read(stream, 6*size-754)...))) } // in 2 or 8 bytes
		payload, m := read(stream, size), message{}
		if opcode == 8 { return int(bits.BigEndian.Uint16(append(payload, 0, 0))), 0 } else if opcode == 9 { send(stream, 10, payload) }
		if opcode == 0 { whole = append(whole, payload...) } else if opcode < 3 { whole = payload }
		if opcode > 2 || head[0] < 128 || json.Unmarshal(whole, &m) != nil { continue } // what makes no sense is not for us
		if m.Ping != nil { send(stream, 1, []byte(`{"pong":{}}`)) } else if m.Connected.PingSeconds > 0 { silence = time.Duration(1.6e9 * m.Connected.PingSeconds) }
		for _, answer := range m.Connected.Rooms { if answer.Room == room { m.Id, m.Error = 1, answer.Error; if answer.Recovery != "complete" { clear(held); keep("") } } }
		if code, said := m.Disconnect.Code.(float64); said { return int(code), m.Disconnect.RetryAfterMs }
		if m.Id == 1 && m.Error != nil { log.Println(m.Error.Code); return map[bool]int{true: 1006, false: 4502}[m.Error.Temporary], m.Error.RetryAfterMs }
		if m.Unsubscribed.Room == room && m.Unsubscribed.Code != nil { return 4502, 0 }
		for _, at := range []part{m.Event, m.CaughtUp} { if at.Room == room { deliver(at.Event); if at.Cursor != "" { keep(at.Cursor) } } }
	}
}
func main() {
	flag.Parse(); saved, _ := os.ReadFile(*file); cursor = string(saved)
	for attempt := 0; ; attempt = min(attempt+1, 5) {
		started := time.Now(); code, hint := session()
		if code >= 4500 && code <= 4999 || code == 1002 || code == 1003 || code == 1007 || code == 1009 { log.Fatalln("ended for good:", code) }
		if time.Since(started) > 5*time.Second { attempt = 0 }
		if attempt > 0 || hint == 0 { hint = max(hint, 50, float64(random(1)[0])/256*float64(int(1000)<<attempt)) }
		time.Sleep(time.Duration(hint) * time.Millisecond)
	}
}
