package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hallmark-admission/hallmark/webhook"
)

// maxBody is that of webhook/server.
const maxBody = 7 << 20

// A decoder gives the uid of a review.
type decoder func(body []byte) (uid string, err error)

// typed decodes as webhooks usually do. The object stays raw: it is no more than is needed to answer.
func typed(body []byte) (string, error) {
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil {
		return "", err
	}
	if review.Request == nil {
		return "", errors.New("the review has no request")
	}
	return string(review.Request.UID), nil
}

// lean decodes as Hallmark does.
func lean(body []byte) (string, error) {
	request, err := webhook.ReadReview(body)
	if err != nil {
		return "", err
	}
	return request.UID, nil
}

// floor serves reviews like "hallmark serve", and allows everything.
func floor(ctx context.Context, args []string, log io.Writer) error {
	flags := flag.NewFlagSet("bench floor", flag.ContinueOnError)
	cert, key := flags.String("tls-cert", "", ""), flags.String("tls-key", "", "")
	how := flags.String("decode", "lean", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	decode, known := map[string]decoder{"typed": typed, "lean": lean}[*how]
	if !known {
		return fmt.Errorf("-decode %q: is typed or lean", *how)
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	mux := http.NewServeMux()
	mux.Handle("POST /mutate", allowing(decode))
	mux.Handle("POST /validate", allowing(decode))
	server := &http.Server{ // these are the settings of webhook/server
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 40 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stopped()
	logger.Info("serving", "address", listener.Addr().String(), "metrics", "")
	err = server.Serve(tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	}))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func allowing(decode decoder) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 || r.ContentLength > maxBody {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		uid, err := decode(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := json.Marshal(admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
			Response: &admissionv1.AdmissionResponse{UID: types.UID(uid), Allowed: true},
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	})
}
