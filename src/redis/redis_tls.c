/*
 * redis_tls.c
 *	  TLS on a link to Redis.
 *
 * hiredis_ssl reads and writes; the connection is made here, since hiredis_ssl
 * does not compare the server's name with its certificate, and says little about
 * failures.  The server's certificate is always verified: against the
 * given CAs or the system's, and against the host's name or address in
 * uncache.redis_url, or redis_tls_server_name.  There is no setting that turns this off.
 *
 * CA, certificate and key are read at each connect, so that new ones need no
 * reload.
 *
 * Failure: OpenSSL's queue of errors belongs to the process.  It is emptied
 * before each step, so that an error in it afterwards is of this step.
 */
#include "postgres.h"

#include "storage/latch.h"

#include "redis/redis_tls.h"

#ifdef HAVE_HIREDIS_SSL

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>

struct RedisTls
{
	SSL		   *ssl;
	bool		attached;		/* the context owns "ssl" */
	char		name[256];		/* that the certificate must have */
};

void
redis_tls_clear_error(void)
{
	ERR_clear_error();
}

const char *
redis_tls_error(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *text = code ? ERR_reason_error_string(code) : "";

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
	if (code != 0 && ERR_SYSTEM_ERROR(code))
		return strerror(ERR_GET_REASON(code));
#endif
	return text ? text : "unknown error";
}

static bool
is_given(const char *option)
{
	return option != NULL && option[0] != '\0';
}

static bool
load_authorities(SSL_CTX *context, const char *file, char *error, size_t size)
{
	if (!is_given(file))
	{
		SSL_CTX_set_default_verify_paths(context);
		return true;
	}
	if (SSL_CTX_load_verify_locations(context, file, NULL) == 1)
		return true;
	snprintf(error, size, "could not load the CA file \"%s\": %s", file, redis_tls_error());
	return false;
}

static bool
load_certificate(SSL_CTX *context, const char *cert, const char *key, char *error, size_t size)
{
	if (!is_given(cert) && !is_given(key))
		return true;
	if (!is_given(cert) || !is_given(key))
		snprintf(error, size, "a certificate needs both uncache.redis_tls_cert_file and "
				 "uncache.redis_tls_key_file");
	else if (SSL_CTX_use_certificate_chain_file(context, cert) != 1)
		snprintf(error, size, "could not load the certificate file \"%s\": %s",
				 cert, redis_tls_error());
	else if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
		snprintf(error, size, "could not load the key file \"%s\": %s", key, redis_tls_error());
	else
		return true;
	return false;
}

/* A key with a passphrase is refused; OpenSSL would ask at the terminal. */
static int
no_passphrase(char *buffer, int size, int writing, void *arg)
{
	return -1;
}

static SSL_CTX *
make_context(const RedisOptions *options, char *error, size_t size)
{
	SSL_CTX    *context = SSL_CTX_new(TLS_client_method());

	if (context == NULL)
	{
		snprintf(error, size, "could not make a TLS context: %s", redis_tls_error());
		return NULL;
	}
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_default_passwd_cb(context, no_passphrase);
	if (load_authorities(context, options->tls_ca_file, error, size) &&
		load_certificate(context, options->tls_cert_file, options->tls_key_file, error, size))
		return context;
	SSL_CTX_free(context);
	return NULL;
}

/* An address is looked for among the certificate's addresses, a name among its names. */
static bool
expect_name(SSL *ssl, const char *name)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1)
		return true;
	return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 &&
		SSL_set_tlsext_host_name(ssl, name) == 1;
}

RedisTls *
redis_tls_open(const RedisOptions *options, const char *host, char *error, size_t size)
{
	const char *name = is_given(options->tls_server_name) ? options->tls_server_name : host;
	RedisTls   *tls = calloc(1, sizeof(RedisTls));
	SSL_CTX    *context;

	snprintf(error, size, "out of memory");
	if (tls == NULL)
		return NULL;
	redis_tls_clear_error();
	context = make_context(options, error, size);
	if (context != NULL)
	{
		strlcpy(tls->name, name, sizeof(tls->name));
		tls->ssl = SSL_new(context);
		SSL_CTX_free(context);	/* "ssl" keeps it */
	}
	if (tls->ssl != NULL && expect_name(tls->ssl, tls->name))
		return tls;
	redis_tls_close(tls);
	return NULL;
}

void
redis_tls_close(RedisTls *tls)
{
	if (!tls->attached)
		SSL_free(tls->ssl);
	free(tls);
}

/* Why the handshake failed, with the result of SSL_do_handshake(). */
static void
explain(RedisTls *tls, int result, char *error, size_t size)
{
	int			saved_errno = errno;
	long		verified = SSL_get_verify_result(tls->ssl);

	if (verified == X509_V_ERR_HOSTNAME_MISMATCH || verified == X509_V_ERR_IP_ADDRESS_MISMATCH)
		snprintf(error, size, "its certificate is not for \"%s\"", tls->name);
	else if (verified != X509_V_OK)
		snprintf(error, size, "its certificate is not accepted: %s",
				 X509_verify_cert_error_string(verified));
	else if (redis_tls_error()[0] != '\0')
		snprintf(error, size, "%s", redis_tls_error());
	else if (result < 0 && saved_errno != 0)
		snprintf(error, size, "%s", strerror(saved_errno));
	else
		snprintf(error, size, "it closed the connection");
}

int
redis_tls_shake_hands(RedisTls *tls, redisContext *context, char *error, size_t size)
{
	int			result;

	redis_tls_clear_error();
	errno = 0;
	if (!tls->attached)
	{
		tls->attached = redisInitiateSSL(context, tls->ssl) == REDIS_OK;
		if (!tls->attached)
		{
			explain(tls, -1, error, size);
			return -1;
		}
	}
	result = SSL_do_handshake(tls->ssl);
	if (result == 1)
		return 1;
	switch (SSL_get_error(tls->ssl, result))
	{
		case SSL_ERROR_WANT_READ:
		case SSL_ERROR_WANT_WRITE:
			return 0;
		default:
			explain(tls, result, error, size);
			return -1;
	}
}

uint32
redis_tls_wanted_events(const RedisTls *tls)
{
	if (SSL_want_write(tls->ssl))
		return WL_SOCKET_WRITEABLE;
	return SSL_want_read(tls->ssl) ? WL_SOCKET_READABLE : 0;
}

#else							/* !HAVE_HIREDIS_SSL */

RedisTls *
redis_tls_open(const RedisOptions *options, const char *host, char *error, size_t size)
{
	snprintf(error, size, "this build of pg_uncache cannot use TLS");
	return NULL;
}

void
redis_tls_close(RedisTls *tls)
{
}

int
redis_tls_shake_hands(RedisTls *tls, struct redisContext *context, char *error, size_t size)
{
	return -1;
}

uint32
redis_tls_wanted_events(const RedisTls *tls)
{
	return 0;
}

void
redis_tls_clear_error(void)
{
}

const char *
redis_tls_error(void)
{
	return "";
}

#endif							/* HAVE_HIREDIS_SSL */
