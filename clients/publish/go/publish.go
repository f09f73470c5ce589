// Publishes one booking over HTTP. Answer on standard output; exit 0 stored, 65 refused, 69 not reached.
package main

import ("fmt"; "io"; "net/http"; "os"; "strings"; "time")

func main() {
	id := fmt.Sprintf("bk-go-%d", time.Now().UnixNano())
	event := fmt.Sprintf(`{"id":"%s","type":"booking:new","room":"bookings","audience":"staff","data":{"id":"%s","customer":"Elif Kaya","country":"TR",
		"category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}`, id, id)
	request, err := http.NewRequest("POST", os.Getenv("ROOMCAST_INGEST")+"/v1/events", strings.NewReader(event))
	var answer *http.Response
	if err == nil {
		request.Header = http.Header{"Authorization": {"Bearer " + os.Getenv("ROOMCAST_TOKEN")}, "Content-Type": {"application/json"}}
		answer, err = (&http.Client{Timeout: 10 * time.Second}).Do(request)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(69)
	}
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(string(body))
	if answer.StatusCode >= 500 || answer.StatusCode == 429 { os.Exit(69) }
	if answer.StatusCode != 200 { os.Exit(65) }
}
