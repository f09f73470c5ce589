// Publishes one booking over HTTP: publish.go [ID]. Answer on standard output; exit 0 stored, 65 refused, 69 not reached in five attempts.
package main

import ("fmt"; "io"; "net/http"; "os"; "strconv"; "strings"; "time")

// Status, the pause that is asked for, and what was said; status 0 is no answer.
func attempt(event string) (int, int, string) {
	request, err := http.NewRequest("POST", os.Getenv("ROOMCAST_INGEST")+"/v1/events", strings.NewReader(event))
	if err != nil { return 0, 0, err.Error() }
	request.Header = http.Header{"Authorization": {"Bearer " + os.Getenv("ROOMCAST_TOKEN")}, "Content-Type": {"application/json"}}
	answer, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil { return 0, 0, err.Error() }
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil { return 0, 0, err.Error() }
	after, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
	return answer.StatusCode, after, string(said)
}

func main() {
	// One id and the same bytes for every attempt: so it is stored once.
	id := fmt.Sprintf("bk-go-%d", time.Now().UnixNano())
	if len(os.Args) > 1 { id = os.Args[1] }
	event := fmt.Sprintf(`{"id":"%s","type":"booking:new","room":"bookings","audience":"staff","data":{"id":"%s","customer":"Elif Kaya","country":"TR",
		"category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}`, id, id)
	for pause := 1; ; pause *= 2 {
		status, after, said := attempt(event)
		if status == 200 { fmt.Println(said); os.Exit(0) }
		if status > 0 && status < 500 && status != 408 && status != 429 { fmt.Println(said); os.Exit(65) }
		// Who shall wait for longer than this comes back later: after two minutes a repeat is a new event.
		if pause == 16 || after > 15 { fmt.Fprintln(os.Stderr, said); os.Exit(69) }
		time.Sleep(time.Duration(max(pause, after)) * time.Second)
	}
}
