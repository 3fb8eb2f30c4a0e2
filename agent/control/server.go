package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/enroll"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/shared/wire"
)

const (
	maxRequest = 64 << 10
	// A backend call may wait for the coordinator, but a person does not wait
	// for ever.
	callTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second
)

// Config of a Server.
type Config struct {
	// Path of the Unix socket, or name of the Windows pipe (\\.\pipe\name).
	Path string
	// Group may use the Unix socket besides the owner; "" is the owner alone.
	// A name or a number. Not used on Windows.
	Group   string
	Backend Backend
	Log     *slog.Logger
}

// Server answers on the control socket.
type Server struct {
	cfg      Config
	listener net.Listener // nil until Listen
}

// New checks cfg.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Path == "":
		return nil, errors.New("control socket: Path is empty; set control.socket")
	case cfg.Backend == nil:
		return nil, errors.New("control socket: Backend is missing")
	case cfg.Log == nil:
		return nil, errors.New("control socket: Log is missing")
	}
	if err := checkPath(cfg.Path); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg}, nil
}

// Listen opens the socket, so that a caller can find out that another agent has
// it before it begins anything. Run does the same if Listen was not called, and
// closes the socket.
func (s *Server) Listen(ctx context.Context) error {
	if s.listener != nil {
		return nil
	}
	listener, err := listen(ctx, s.cfg.Path, s.cfg.Group)
	if err != nil {
		return err
	}
	s.listener = listener
	s.cfg.Log.Info("control socket is open", "path", s.cfg.Path)
	return nil
}

// Run listens and serves until ctx is done, and returns nil once every request
// has been answered or cut off. A socket that was left behind by a crash is
// replaced; one that somebody answers on, and any other kind of file, is not.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(ctx); err != nil {
		return err
	}
	listener := s.listener

	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      callTimeout + 10*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
		// Requests end with the server.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	select {
	case err := <-served:
		return fmt.Errorf("control socket %s: %w", s.cfg.Path, err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		s.cfg.Log.Warn("control requests were cut off at shutdown", "err", errors.Join(err, server.Close()))
	}
	// Serve has ended because of Shutdown, which has said all there is to say.
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket %s: %w", s.cfg.Path, err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, struct{}{}) })
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/certificates/{name}", s.certificate)
	mux.HandleFunc("POST /v1/certificates/{name}/renew", s.renew)
	mux.HandleFunc("POST /v1/reload", s.reload)
	mux.HandleFunc("GET /v1/subjects", s.subjects)
	mux.HandleFunc("POST /v1/enroll", s.enroll)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, &wire.Problem{
			Status: http.StatusNotFound, Code: wire.CodeNotFound, Detail: "the control socket has no such request",
			Mend: "use the certctl-agent command of the same version as the running agent",
		})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		mux.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	status, err := s.cfg.Backend.Status(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, http.StatusOK, status)
}

func (s *Server) certificate(w http.ResponseWriter, r *http.Request) {
	status, err := s.cfg.Backend.Status(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	name := r.PathValue("name")
	all := slices.Concat(status.Certificates, status.Removed)
	at := slices.IndexFunc(all, func(c Certificate) bool { return c.Name == name })
	if at < 0 {
		s.fail(w, fmt.Errorf("%q: %w", name, ErrUnknownCertificate))
		return
	}
	answer(w, http.StatusOK, all[at])
}

// subjectLine is one line of the list of subjects. The last one is its end, so
// that a list that broke off is not taken for a whole one.
type subjectLine struct {
	Subject *renewal.Subject `json:"subject,omitempty"`
	End     bool             `json:"end,omitempty"`
}

// subjects answers with one line of JSON for each, as they are read: a host may
// have very many, and the agent keeps only one in memory.
func (s *Server) subjects(w http.ResponseWriter, r *http.Request) {
	out := bufio.NewWriter(w)
	encoder := json.NewEncoder(out)
	begun := false
	err := s.cfg.Backend.Subjects(r.Context(), func(subject *renewal.Subject) error {
		if !begun {
			w.Header().Set("Content-Type", "application/jsonl")
			begun = true
		}
		return encoder.Encode(subjectLine{Subject: subject})
	})
	switch {
	case err == nil:
		err = errors.Join(encoder.Encode(subjectLine{End: true}), out.Flush())
	case !begun:
		s.fail(w, err)
		return
	}
	if err != nil {
		// The answer lacks its end, which tells the client.
		s.cfg.Log.Warn("the list of certificates for a drill broke off", "err", err)
	}
}

// renewAnswer is the answer to a request to renew.
type renewAnswer struct {
	UnderWay bool `json:"under_way"`
}

func (s *Server) renew(w http.ResponseWriter, r *http.Request) {
	underWay, err := s.cfg.Backend.Renew(r.Context(), r.PathValue("name"))
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, http.StatusAccepted, renewAnswer{UnderWay: underWay})
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	done, err := s.cfg.Backend.Reload(r.Context())
	if err != nil {
		refuse(w, &wire.Problem{Status: http.StatusUnprocessableEntity, Code: wire.CodeInvalid, Detail: err.Error()})
		return
	}
	answer(w, http.StatusOK, done)
}

// enrollBody is EnrollRequest on the socket: the one place where the token is
// text.
type enrollBody struct {
	Server  string   `json:"server,omitempty"` // of programs that know one only
	Servers []string `json:"servers,omitempty"`
	Token   string   `json:"token"`
	Replace bool     `json:"replace,omitempty"`
}

func (s *Server) enroll(w http.ResponseWriter, r *http.Request) {
	var body enrollBody
	if problem := wire.Decode(r.Body, maxRequest, &body); problem != nil {
		refuse(w, problem)
		return
	}
	token, err := wire.ParseEnrollmentToken(body.Token)
	if err != nil {
		refuse(w, &wire.Problem{
			Status: http.StatusBadRequest, Code: wire.CodeInvalid, Field: "token", Detail: err.Error(),
		})
		return
	}
	servers := body.Servers
	if len(servers) == 0 {
		servers = []string{body.Server}
	}
	enrollment, err := s.cfg.Backend.Enroll(r.Context(), EnrollRequest{Servers: servers, Token: token, Replace: body.Replace})
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, http.StatusOK, enrollment)
}

// fail answers with what went wrong in the backend.
func (s *Server) fail(w http.ResponseWriter, err error) {
	problem, ok := errors.AsType[*wire.Problem](err)
	failed, enrolling := errors.AsType[*enroll.Error](err)
	switch {
	case ok:
		// The text of the whole error says what was being done, and holds the
		// problem's own, whose code is not to be shown twice.
		told := *problem
		told.Detail = strings.Replace(err.Error(), " ["+string(problem.Code)+"]", "", 1)
		told.Field, told.Mend = "", ""
		problem = &told
	case errors.Is(err, ErrUnknownCertificate):
		problem = &wire.Problem{
			Status: http.StatusNotFound, Code: wire.CodeNotFound, Field: "name", Detail: err.Error(),
			Mend: "\"certctl-agent list\" shows the names",
		}
	case errors.Is(err, ErrNotNow):
		problem = &wire.Problem{Status: http.StatusServiceUnavailable, Code: wire.CodeUnavailable, Detail: err.Error()}
	case errors.Is(err, enroll.ErrEnrolled):
		problem = &wire.Problem{Status: http.StatusConflict, Code: wire.CodeConflict, Detail: err.Error()}
	case enrolling && failed.Code == wire.CodeInvalid:
		problem = &wire.Problem{Status: http.StatusBadRequest, Code: failed.Code, Detail: err.Error()}
	case enrolling: // there is no coordinator at that address, or no way to it
		problem = &wire.Problem{Status: http.StatusBadGateway, Code: wire.CodeUnavailable, Detail: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		problem = &wire.Problem{Status: http.StatusGatewayTimeout, Code: wire.CodeUnavailable, Detail: err.Error(), Mend: "try again"}
	default:
		problem = &wire.Problem{Status: http.StatusInternalServerError, Code: wire.CodeInternal, Detail: err.Error()}
	}
	refuse(w, problem)
}

func refuse(w http.ResponseWriter, problem *wire.Problem) {
	told := *problem
	told.Type, told.Title = "about:blank", http.StatusText(told.Status)
	write(w, wire.ProblemContentType, told.Status, told)
}

func answer(w http.ResponseWriter, status int, body any) {
	write(w, "application/json", status, body)
}

func write(w http.ResponseWriter, contentType string, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		contentType, status = wire.ProblemContentType, http.StatusInternalServerError
		text = fmt.Appendf(nil, `{"type":"about:blank","title":"Internal Server Error","status":500,"code":%q}`, wire.CodeInternal)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	// A client that has gone away needs no answer.
	_, _ = w.Write(text)
}
