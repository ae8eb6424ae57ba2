// Runs net/http of Go against a provider, or against Callgate in front of it: `drive NAME STEP...`. Has the same steps and
// prints the same lines as drive.py.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

var (
	base    = os.Getenv("BASE")
	file    = bytes.Repeat([]byte("0123456789abcdef"), 3*65536)
	seconds = []float64{}
)

func control(path string) {
	direct := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := direct.Get("http://127.0.0.1:" + os.Getenv("CONTROL") + path)
	if err != nil {
		panic(err)
	}
	answer.Body.Close()
}

func send(method, path, kind string, body io.Reader) string {
	request, err := http.NewRequest(method, base+path, body)
	if err != nil {
		panic(err)
	}
	if kind != "" {
		request.Header.Set("content-type", kind)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%d %s\n", answer.StatusCode, text)
}

func sendJSON(method, path, text string) string {
	return send(method, path, "application/json", strings.NewReader(text))
}

func stream() string {
	var got []string
	rounds, _ := strconv.Atoi(os.Getenv("ROUNDS"))
	for round := 0; round < rounds; round++ {
		got = nil
		began := time.Now()
		text := `{"stream": true, "messages": [{"role": "user", "content": "Grüße"}]}`
		answer, err := http.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(text))
		if err != nil {
			panic(err)
		}
		lines := bufio.NewScanner(answer.Body)
		for lines.Scan() {
			if !strings.HasPrefix(lines.Text(), "data:") {
				continue
			}
			if got = append(got, lines.Text()); len(got) == 1 {
				seconds = append(seconds, time.Since(began).Seconds())
				control("/seen")
			}
		}
		answer.Body.Close()
	}
	return strings.Join(got, "\n")
}

func upload() string {
	var form bytes.Buffer
	writer := multipart.NewWriter(&form)
	part, _ := writer.CreateFormFile("file", "f.bin")
	part.Write(file)
	writer.WriteField("name", "n")
	writer.Close()
	whole := send("POST", "/v1/upload", writer.FormDataContentType(), &form)
	// The length of this reader is unknown, so that the body is sent in chunks.
	return whole + send("POST", "/v1/upload", "application/octet-stream", io.MultiReader(bytes.NewReader(file)))
}

func run(step string) (got string, failed any) {
	defer func() { failed = recover() }()
	switch step {
	case "plain":
		got = send("GET", "/v1/models?page=2&name=a%20b+c&sign=%2F%3d", "", nil) +
			sendJSON("POST", "/v1/echo", `{"text": "Grüße", "number": 1.50}`) + sendJSON("PUT", "/v1/echo", "{}")
	case "stream":
		got = stream()
	case "upload":
		got = upload()
	case "poll":
		for !strings.Contains(send("GET", "/v1/jobs/job1", "", nil), `"succeeded"`) {
		}
		got = "done"
	case "redirect":
		got = send("GET", "/v1/moved", "", nil) + sendJSON("POST", "/v1/moved", `{"text": "again"}`)
	case "callback":
		got = sendJSON("POST", "/v1/jobs", `{"input": "Grüße"}`)
	}
	return got, nil
}

func main() {
	for _, step := range os.Args[2:] {
		control("/step/" + step)
		seconds = []float64{}
		outcome := map[string]any{"step": step}
		if got, failed := run(step); failed != nil {
			outcome["error"] = fmt.Sprint(failed)
		} else {
			outcome["got"] = got
		}
		outcome["seconds"] = seconds
		line, _ := json.Marshal(outcome)
		fmt.Println(string(line))
	}
}
